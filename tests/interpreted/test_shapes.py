"""Tier 1: small integers, compared exactly, over shapes, layouts, biases and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twolayer_kernels import functional

from ..comparing import assert_equal
from ..problems import OPS, check_exact, dtype_id, exact, fused, integers
from ..shapes import EDGE_SHAPES, EMPTY_SHAPES, FEW_SHAPES, LAYOUTS, MIXED_SHAPES, Shape, size_id
from ..test_derivatives import ARGUMENTS, subsets
from .forcing import Force

pytestmark = pytest.mark.usefixtures("poisoned_memory")

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SHAPE = Shape(33, 70, 65, 10)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
each_op = pytest.mark.parametrize("op", OPS)

# One size at a time on either side of the kernels' tiles: 16, 32, 64, 128, 256.
TILE_EDGES = {edge + step for edge in (16, 32, 64, 128, 256) for step in (-1, 0, 1)} | {1}
EDGES = [shape for shape in EDGE_SHAPES if TILE_EDGES & set(shape)]
JUST_OVER = [shape for shape in EDGE_SHAPES if {17, 65, 129, 257} & set(shape)]
# The interpreter takes milliseconds for a step of a tile.
LONG = [shape for shape in MIXED_SHAPES if max(shape) > 500]
MIXED = [shape for shape in MIXED_SHAPES if shape not in LONG]


def each_shape(*shapes: Shape):
    return pytest.mark.parametrize("shape", shapes, ids=size_id)


@each_shape(*EDGES)
def test_edges(path, shape):
    problem = integers(shape, torch.float32, seed=1)
    check_exact(problem, fused(problem, "triton"))


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=dtype_id)
@each_shape(*JUST_OVER)
def test_edges_in_16_bits(path, shape, dtype):
    problem = integers(shape, dtype, seed=2)
    check_exact(problem, fused(problem, "triton"))


@each_shape(*MIXED)
def test_mixed_shapes(path, shape):
    problem = integers(shape, torch.float32, seed=3)
    check_exact(problem, fused(problem, "triton"))


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=dtype_id)
@each_shape(*MIXED)
def test_mixed_shapes_in_16_bits(path, shape, dtype):
    problem = integers(shape, dtype, seed=14)
    check_exact(problem, fused(problem, "triton"))


@each_shape(*LONG)
def test_long_shapes(path, shape):
    problem = integers(shape, torch.float32, seed=4)
    check_exact(problem, fused(problem, "triton"))


@each_dtype
@each_shape(*MIXED, Shape(6, 1025, 129, 10), Shape(3000, 33, 17, 3))
def test_linear_relu(shape, dtype):
    problem = integers(shape, dtype, op="linear_relu", seed=5)
    check_exact(problem, fused(problem, "triton"))


@each_op
@each_dtype
@each_shape(*EMPTY_SHAPES)
def test_empty_shapes(shape, dtype, op):
    problem = integers(shape, dtype, op=op, seed=6)
    check_exact(problem, fused(problem, "triton"))


@each_dtype
@each_shape(*FEW_SHAPES)
def test_without_graph(path, shape, dtype):
    problem = integers(shape, dtype, seed=7)
    y = functional.two_layer(**problem.inputs, backend="triton")
    assert_equal("y", y, exact(problem)["y"].to(dtype))


@each_dtype
@pytest.mark.parametrize("bias", ["none", "first", "second"])
def test_missing_biases(path, bias, dtype):
    problem = integers(SHAPE, dtype, bias=bias, seed=8)
    check_exact(problem, fused(problem, "triton"))


@each_dtype
@each_shape(*FEW_SHAPES)
def test_recompute(path, shape, dtype):
    problem = integers(shape, dtype, seed=9)
    check_exact(problem, fused(problem, "triton", recompute=True))


# The second shape's rows suit descriptors, in every layout that keeps its elements adjacent.
each_alignment = pytest.mark.parametrize(
    ("shape", "dtype"),
    [(SHAPE, torch.float32), (Shape(24, 40, 72, 16), torch.bfloat16)],
    ids=["odd", "aligned"],
)


@each_alignment
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_all_tensors(path, layout, shape, dtype):
    problem = integers(shape, dtype, layout=layout, seed=10)
    check_exact(problem, fused(problem, "triton"))


@each_alignment
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_one_layer(layout, shape, dtype):
    problem = integers(shape, dtype, op="linear_relu", layout=layout, seed=15)
    check_exact(problem, fused(problem, "triton"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tensor", ["x", "w1", "w2", "b1", "b2", "grad"])
def test_layout_of_one_tensor(path, tensor, layout):
    problem = integers(Shape(17, 40, 33, 10), torch.float32, layout={tensor: layout}, seed=11)
    check_exact(problem, fused(problem, "triton"))


@pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recompute"])
@pytest.mark.parametrize("needs", subsets("two_layer"), ids="+".join)
def test_subsets_of_gradients(path, needs, recompute):
    problem = integers(Shape(13, 19, 11, 7), torch.float32, seed=12)
    results = fused(problem, "triton", needs=needs, recompute=recompute)
    for name in set(ARGUMENTS["two_layer"]) - set(needs):
        assert results.pop(f"grad_{name}") is None
    check_exact(problem, results)


@pytest.mark.parametrize("needs", subsets("linear_relu"), ids="+".join)
def test_subsets_of_gradients_of_one_layer(needs):
    problem = integers(Shape(13, 19, 11, 7), torch.float32, op="linear_relu", seed=13)
    results = fused(problem, "triton", needs=needs)
    for name in set(ARGUMENTS["linear_relu"]) - set(needs):
        assert results.pop(f"grad_{name}") is None
    check_exact(problem, results)


sizes = st.one_of(st.integers(0, 9), st.integers(10, 80))
shapes = st.builds(Shape, sizes, sizes, sizes, sizes)
layouts = st.fixed_dictionaries(
    {name: st.sampled_from(list(LAYOUTS)) for name in ("x", "w1", "w2", "w", "b1", "b2", "grad")}
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=shapes,
    layout=layouts,
    dtype=st.sampled_from(DTYPES),
    bias=st.sampled_from(["both", "none", "first", "second"]),
    op=st.sampled_from(OPS),
    path_name=st.sampled_from(["general", "narrow"]),
    arch=st.sampled_from([80, 90]),
    seed=st.integers(0, 2**31),
)
def test_any_shape_and_layouts(shape, layout, dtype, bias, op, path_name, arch, seed):
    problem = integers(shape, dtype, op=op, bias=bias, layout=layout, seed=seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        force = Force(monkeypatch)
        force.path(path_name)
        force.device(arch, 3)
        check_exact(problem, fused(problem, "triton"))
