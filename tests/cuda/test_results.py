"""What the kernels compute: exact on small integers, within the error budget on random inputs."""

from __future__ import annotations

import pytest
import torch

from twolayer_kernels import functional

from ..comparing import Compared, assert_equal, assert_within_budget
from ..problems import (
    OPS,
    check_budget,
    check_exact,
    draw_count,
    dtype_id,
    exact,
    integers,
    measures,
    randoms,
)
from ..shapes import (
    BENCH_SHAPES,
    EMPTY_SHAPES,
    FEW_SHAPES,
    LAYOUTS,
    MIXED_SHAPES,
    Shape,
    size_id,
)
from .device import DTYPES, decided, on_device, ours, require_cuda, tf32, tf32_integers, truncated

require_cuda()

SHAPE = Shape(33, 70, 65, 10)
# Widths that tensor descriptors take in 16 bits too, several tiles each way, and a sum over the
# batch that is cut among the multiprocessors.
ALIGNED = Shape(1500, 264, 392, 320)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
# float16 takes the tiles and the loads of bfloat16.
some_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
each_op = pytest.mark.parametrize("op", OPS)
each_recompute = pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recompute"])


def each_shape(*shapes: Shape):
    return pytest.mark.parametrize("shape", shapes, ids=size_id)


# Exactly.


@each_dtype
@each_shape(*BENCH_SHAPES, *MIXED_SHAPES, *EMPTY_SHAPES, ALIGNED)
def test_two_layer_exactly(shape, dtype):
    problem = on_device(integers(shape, dtype, seed=1))
    check_exact(problem, ours(problem))


@each_dtype
@each_shape(*MIXED_SHAPES, *EMPTY_SHAPES)
def test_linear_relu_exactly(shape, dtype):
    problem = on_device(integers(shape, dtype, op="linear_relu", seed=2))
    check_exact(problem, ours(problem))


@each_shape(*BENCH_SHAPES, *FEW_SHAPES, ALIGNED)
def test_two_layer_exactly_with_tf32(shape):
    problem = tf32_integers(shape, seed=3)
    with tf32():
        check_exact(problem, ours(problem))


@each_dtype
@each_shape(*FEW_SHAPES, Shape(64, 1000, 100, 10))
def test_both_paths_exactly(path, shape, dtype):
    problem = on_device(integers(shape, dtype, seed=4))
    check_exact(problem, ours(problem))


@each_recompute
@each_dtype
@each_shape(Shape(64, 256, 256, 10), ALIGNED)
def test_recompute_exactly(recompute, shape, dtype):
    problem = on_device(integers(shape, dtype, seed=5))
    check_exact(problem, ours(problem, recompute=recompute))


@each_dtype
@each_shape(*FEW_SHAPES, ALIGNED)
def test_without_a_graph_exactly(shape, dtype):
    problem = on_device(integers(shape, dtype, seed=6))
    y = functional.two_layer(**problem.inputs, backend="triton")
    assert_equal("y", y, exact(problem)["y"].to(dtype))


@each_op
@some_dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_exactly(path, layout, dtype, op):
    problem = on_device(integers(SHAPE, dtype, op=op, layout=layout, seed=7))
    check_exact(problem, ours(problem))


@some_dtypes
@pytest.mark.parametrize("layout", ["transposed", "offset", "far_rows"])
def test_layouts_of_whole_tiles_exactly(layout, dtype):
    problem = on_device(integers(ALIGNED, dtype, layout=layout, seed=8))
    check_exact(problem, ours(problem))


@each_op
@pytest.mark.parametrize("bias", ["none", "first", "second"])
def test_missing_biases_exactly(path, bias, op):
    problem = on_device(integers(SHAPE, torch.float32, op=op, bias=bias, seed=9))
    check_exact(problem, ours(problem))


@pytest.mark.parametrize(
    "needs", [("x",), ("w1",), ("w2",), ("b1",), ("b2",), ("w2", "b2")], ids=str
)
def test_some_gradients_exactly(path, needs):
    problem = on_device(integers(SHAPE, torch.float32, seed=10))
    results = ours(problem, needs=needs)
    assert {name for name, t in results.items() if t is not None} == {
        "y",
        *(f"grad_{name}" for name in needs),
    }
    check_exact(problem, {name: t for name, t in results.items() if t is not None})


def test_a_planted_fault_is_found():
    problem = on_device(integers(SHAPE, torch.float32, seed=11))
    results = ours(problem)
    results["grad_w1"][64, 69] += 1
    with pytest.raises(AssertionError, match=r"grad_w1: not equal: 1 of"):
        check_exact(problem, results)


# Within the error budget.


@each_op
@each_dtype
@each_shape(*MIXED_SHAPES)
def test_over_shapes(op, shape, dtype):
    problems = [
        on_device(randoms(shape, dtype, op=op, seed=1000 + draw))
        for draw in range(min(16, draw_count(shape, dtype)))
    ]
    check_budget(problems, [ours(problem) for problem in problems])


@each_dtype
@each_shape(*BENCH_SHAPES, ALIGNED)
def test_on_the_benches_shapes(shape, dtype):
    problems = [
        decided(shape, dtype, seed=2000 + draw) for draw in range(min(8, draw_count(shape, dtype)))
    ]
    check_budget(problems, [ours(problem) for problem in problems])


@each_shape(*BENCH_SHAPES, *FEW_SHAPES, ALIGNED)
def test_with_tf32(path, shape):
    problems = [
        decided(shape, torch.float32, seed=3000 + draw)
        for draw in range(min(8, draw_count(shape, torch.float32)))
    ]
    allowed, exacts = [*map(truncated, problems)], [*map(measures, problems)]
    with tf32():
        results = [ours(problem) for problem in problems]
    for name in results[0]:
        parts = zip(results, allowed, exacts, strict=True)
        assert_within_budget(
            name, [Compared(got[name], torchs[name], exact[name]) for got, torchs, exact in parts]
        )


@some_dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(path, layout, dtype):
    problems = [
        on_device(randoms(SHAPE, dtype, layout=layout, seed=4000 + draw)) for draw in range(8)
    ]
    check_budget(problems, [ours(problem) for problem in problems])


@each_recompute
@each_dtype
def test_recompute(path, recompute, dtype):
    problems = [on_device(randoms(SHAPE, dtype, seed=5000 + draw)) for draw in range(8)]
    check_budget(problems, [ours(problem, recompute=recompute) for problem in problems])
