"""Every tile that ships for sm_90, shared sums, descriptors and pointers, compared exactly."""

from __future__ import annotations

import pytest
import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from twolayer_kernels.backends.triton import layers, tiles
from twolayer_kernels.functional import two_layer

from ..comparing import assert_equal
from ..problems import check_exact, dtype_id, exact, fused, integers
from ..shapes import Shape, size_id
from .forcing import HOPPER, NARROW_KERNELS, SMALL

pytestmark = pytest.mark.usefixtures("poisoned_memory")

PRECISIONS = ("16bit", "tf32", "tf32x3", "ieee")
# How a product in float32 is rounded is beyond the interpreter: these are tests of indices.
DTYPE = dict.fromkeys(PRECISIONS, torch.float32) | {"16bit": torch.bfloat16}


def tile_id(value) -> str:
    return "x".join(map(str, value[:3])) if isinstance(value, tuple) else value


TILES = [
    (kernel, precision, tile)
    for kernel in tiles.KERNELS
    for precision in PRECISIONS
    for tile in tiles.tiles_for(kernel, precision, HOPPER)
]
NARROW_TILES = [
    (kernel, precision, tile)
    for kernel in NARROW_KERNELS
    for precision in ("16bit", "tf32", "ieee")
    for tile in tiles.narrow_tiles_for(kernel, precision, HOPPER)
]


def crossing(kernel: str, tile, more: int) -> Shape:
    """A network with a product of this kind that is ``more`` than a tile along M, N and K."""
    m, n, k = tile.block_m + more, tile.block_n + more, tile.block_k + more
    return {
        "linear": Shape(m, k, n, 16),
        "dgrad": Shape(m, 24, n, k),
        "wgrad": Shape(k, 24, n, m),
    }[kernel]


# Rows of 16 and more elements over take descriptors, in every dtype; of one over, pointers.
@pytest.mark.parametrize("more", [1, 16], ids=["odd", "aligned"])
@pytest.mark.parametrize(("kernel", "precision", "tile"), TILES, ids=tile_id)
def test_each_tile(force, kernel, precision, tile, more):
    force.path("general")
    used = force.tile(kernel, tile)
    problem = integers(crossing(kernel, tile, more), DTYPE[precision], seed=1)
    check_exact(problem, fused(problem, "triton"))
    assert tuple(size + more for size in tile[:3]) in used


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("kernel", "precision", "tile"), NARROW_TILES, ids=tile_id)
def test_each_narrow_tile(force, kernel, precision, tile, parts):
    force.path("narrow")
    used = force.narrow_tile(kernel, tile, parts)
    out = min(tile.most_out, 65)
    shape = Shape(2 * tile.block_b + 1, tile.block_k + 1, 2 * tile.block_h + 1, out)
    problem = integers(shape, DTYPE[precision], seed=2)
    check_exact(problem, fused(problem, "triton"))
    assert used == [shape]


@pytest.mark.parametrize("out_features", [1, 15, 16, 17, 32, 33, 256])
def test_widths_of_a_narrow_output(force, out_features):
    force.path("narrow")
    problem = integers(Shape(19, 21, 35, out_features), torch.float32, seed=3)
    check_exact(problem, fused(problem, "triton"))


@pytest.mark.parametrize("group_m", [1, 2, 8])
@pytest.mark.parametrize("multiprocessors", [1, 3, 132])
def test_orders_of_many_tiles(force, group_m, multiprocessors):
    """Whole bands and the rest of one; programs with several tiles, with one and without."""
    force.path("general")
    force.device(90, multiprocessors)
    for kernel, tile in SMALL.items():
        force.tile(kernel, tile._replace(group_m=group_m))
    problem = integers(Shape(200, 40, 150, 130), torch.float16, seed=4)
    check_exact(problem, fused(problem, "triton"))


# Both weights' sums run over the batch: 5 steps of it.
@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=dtype_id)
def test_a_batch_cut_into_parts(force, parts, dtype):
    force.path("general")
    used = force.tile("wgrad", SMALL["wgrad"], parts)
    problem = integers(Shape(4 * SMALL["wgrad"].block_k + 1, 30, 66, 20), dtype, seed=5)
    check_exact(problem, fused(problem, "triton"))
    assert len(used) == 2


# More parts than blocks to share, too: some have nothing to add.
@pytest.mark.parametrize("parts", [2, 5, 9])
@pytest.mark.parametrize("needs", [None, ("w1",), ("w2", "b2"), ("b1",), ("x", "b2")], ids=str)
def test_narrow_sums_shared_by_parts(force, parts, needs):
    force.path("narrow")
    for kernel in NARROW_KERNELS:
        force.narrow_tile(kernel, tiles.narrow_tiles_for(kernel, "tf32", HOPPER)[0], parts)
    problem = integers(Shape(200, 30, 70, 10), torch.float32, seed=6)
    results = fused(problem, "triton", needs=needs)
    check_exact(problem, {name: t for name, t in results.items() if t is not None})


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
def test_weights_gradients_added_to_what_is_there(force, parts, dtype):
    force.tile("wgrad", SMALL["wgrad"], parts)
    problem = integers(Shape(4 * SMALL["wgrad"].block_k + 1, 30, 66, 20), dtype, seed=7)
    leaves = {name: t.clone().requires_grad_() for name, t in problem.inputs.items()}
    for name in ("w1", "w2"):
        leaves[name].main_grad = torch.full(leaves[name].shape, 3.0)
        leaves[name].grad_added_to_main_grad = False
    two_layer(**leaves, backend="triton").backward(problem.grad_out)
    wanted = exact(problem)
    for name, leaf in leaves.items():
        if name in ("w1", "w2"):
            assert_equal(name, leaf.main_grad, (wanted[f"grad_{name}"] + 3).float())
        else:
            assert_equal(name, leaf.grad, wanted[f"grad_{name}"].to(dtype))


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("multiprocessors", [3, 132])
@pytest.mark.parametrize(
    "shape", [Shape(33, 70, 65, 10), Shape(24, 48, 32, 16), Shape(700, 20, 30, 260)], ids=size_id
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
def test_what_the_backend_chooses_itself(force, arch, multiprocessors, shape, dtype):
    force.device(arch, multiprocessors)
    problem = integers(shape, dtype, seed=8)
    check_exact(problem, fused(problem, "triton"))


@pytest.mark.parametrize(
    ("arch", "in_features", "described"),
    [(90, 64, True), (90, 63, False), (80, 64, False)],
    ids=["sm_90", "sm_90 odd rows", "sm_80"],
)
def test_when_descriptors_are_used(force, monkeypatch, arch, in_features, described):
    force.path("general")
    force.device(arch, 3)
    launch, seen = layers.launch, []

    def watched(kernel, grid, arguments, *rest):
        seen.append(any(isinstance(argument, TensorDescriptor) for argument in arguments))
        launch(kernel, grid, arguments, *rest)

    monkeypatch.setattr(layers, "launch", watched)
    # All rows but x's and w1's are too odd for a descriptor.
    problem = integers(Shape(33, in_features, 65, 9), torch.float32, seed=9)
    check_exact(problem, fused(problem, "triton"))
    assert any(seen) == described
