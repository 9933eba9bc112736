"""Tier 1: small integers, compared exactly. A wrong index cannot hide."""

from __future__ import annotations

import pytest
import torch

from twolayer_kernels import functional

from .comparing import assert_equal
from .problems import BACKENDS, DTYPES, OPS, check_exact, dtype_id, exact, fused, integers
from .shapes import (
    BENCH_SHAPES,
    BLOCK_SHAPES,
    EDGE_SHAPES,
    EMPTY_SHAPES,
    FEW_SHAPES,
    LAYOUTS,
    MIXED_SHAPES,
    Shape,
    size_id,
)

pytestmark = pytest.mark.usefixtures("poisoned_memory")

SHAPE = Shape(17, 40, 33, 10)
each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
each_op = pytest.mark.parametrize("op", OPS)


def each_shape(*shapes: Shape):
    return pytest.mark.parametrize("shape", shapes, ids=size_id)


@each_backend
@each_dtype
@each_shape(*EDGE_SHAPES, *MIXED_SHAPES, *EMPTY_SHAPES)
def test_two_layer_over_shapes(backend, shape, dtype):
    problem = integers(shape, dtype, seed=1)
    check_exact(problem, fused(problem, backend))


@each_backend
@each_dtype
@each_shape(*MIXED_SHAPES, *EMPTY_SHAPES)
def test_linear_relu_over_shapes(backend, shape, dtype):
    problem = integers(shape, dtype, op="linear_relu", seed=2)
    check_exact(problem, fused(problem, backend))


@each_backend
@each_dtype
@each_shape(*MIXED_SHAPES, *EMPTY_SHAPES)
def test_two_layer_without_graph_over_shapes(backend, shape, dtype):
    problem = integers(shape, dtype, seed=3)
    y = functional.two_layer(**problem.inputs, backend=backend)
    assert_equal("y", y, exact(problem)["y"].to(dtype))


@each_dtype
@each_shape(*BLOCK_SHAPES)
def test_shapes_of_several_blocks(shape, dtype):
    """Only the cpu backend cuts into blocks and chunks."""
    problem = integers(shape, dtype, seed=11)
    check_exact(problem, fused(problem, "cpu"))
    check_exact(problem, fused(problem, "cpu", recompute=True))
    problem = integers(shape, dtype, op="linear_relu", seed=12)
    check_exact(problem, fused(problem, "cpu"))


@each_shape(*BENCH_SHAPES)
def test_two_layer_on_the_benches_shapes(shape):
    problem = integers(shape, torch.float32, seed=4)
    check_exact(problem, fused(problem, "cpu"))


@each_backend
@each_op
@each_dtype
@pytest.mark.parametrize("bias", ["none", "first", "second"])
@each_shape(*FEW_SHAPES, Shape(0, 5, 4, 3), Shape(3, 0, 4, 2))
def test_missing_biases(backend, shape, dtype, bias, op):
    problem = integers(shape, dtype, op=op, bias=bias, seed=5)
    check_exact(problem, fused(problem, backend))


@each_backend
@each_dtype
@each_shape(*FEW_SHAPES, *EMPTY_SHAPES)
def test_recompute(backend, shape, dtype):
    problem = integers(shape, dtype, seed=6)
    check_exact(problem, fused(problem, backend, recompute=True))


@each_backend
@each_op
@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
@each_shape(*FEW_SHAPES, *EMPTY_SHAPES)
def test_layouts_of_all_tensors(backend, shape, layout, dtype, op):
    problem = integers(shape, dtype, op=op, layout=layout, seed=7)
    check_exact(problem, fused(problem, backend))


@each_backend
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tensor", ["x", "w1", "w2", "b1", "b2", "grad"])
@each_shape(*FEW_SHAPES, Shape(20, 1100, 70, 9))
def test_layout_of_one_tensor(backend, shape, tensor, layout):
    problem = integers(shape, torch.float32, layout={tensor: layout}, seed=8)
    check_exact(problem, fused(problem, backend))


@each_backend
@each_op
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.bfloat16], ids=dtype_id)
def test_subnormal_numbers(backend, dtype, op):
    """Integers times the smallest number there is; bfloat16 units of processors drop those."""
    problem = integers(SHAPE, dtype, op=op, seed=9)
    for name in ("x", "b", "b1", "b2"):
        if name in problem.inputs:
            problem.inputs[name].mul_(torch.finfo(dtype).smallest_normal)
            problem.inputs[name].mul_(torch.finfo(dtype).eps)
    assert 0 < problem.inputs["x"].abs().max() < torch.finfo(dtype).smallest_normal
    check_exact(problem, fused(problem, backend))


@each_backend
def test_what_overflows_float16_is_infinite(backend):
    problem = integers(SHAPE, torch.float16, seed=10)
    problem.inputs["b2"].fill_(torch.finfo(torch.float16).max)
    results = fused(problem, backend)
    assert results["y"].isinf().any()
    assert results["y"].isfinite().any()
    check_exact(problem, results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", [(1100, 3, 5, 4096), (1100, 3, 5, 4090), (5, 4096, 1100, 3)])
def test_results_that_go_past_the_caches(dtype, sizes):
    """Outputs or a weight's gradient of 16 MB and more, in rows of whole vectors and in others."""
    batch, in_features, hidden, out = sizes
    generator = torch.Generator().manual_seed(3)

    def integers(*shape):
        return torch.randint(-2, 3, shape, generator=generator).to(dtype)

    x = integers(batch, in_features).requires_grad_()
    shapes = ((hidden, in_features), (out, hidden), (hidden,), (out,))
    parameters = [integers(*shape).requires_grad_() for shape in shapes]
    w1, w2, b1, b2 = parameters
    grad = integers(batch, out)
    wanted = (x @ w1.T + b1).relu() @ w2.T + b2
    for result in (functional.two_layer(x, w1, w2, b1, b2), wanted):
        found = torch.autograd.grad(result, [x, *parameters], grad)
        if result is not wanted:
            ours, gradients = result, found
    assert torch.equal(ours, wanted)
    for mine, theirs in zip(gradients, found, strict=True):
        assert torch.equal(mine, theirs)
