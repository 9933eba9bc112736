"""NaN, infinity, zero and overflow; and the same bits from every run."""

from __future__ import annotations

import math

import pytest
import torch

from twolayer_kernels import functional

from ..comparing import assert_equal, assert_same_bits
from ..problems import OPS, check_exact, dtype_id, fused, integers, plain, randoms
from ..shapes import Shape
from ..test_derivatives import ARGUMENTS

pytestmark = pytest.mark.usefixtures("poisoned_memory")

SHAPE = Shape(17, 40, 33, 10)
each_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=dtype_id
)
each_op = pytest.mark.parametrize("op", OPS)


@each_dtype
def test_nan_stays_nan_and_its_gradient_passes(dtype):
    problem = integers(SHAPE, dtype, op="linear_relu", seed=1)
    problem.inputs["x"][2, 5] = math.nan
    results, wanted = fused(problem, "triton"), plain(problem)
    assert results["y"][2].isnan().all()
    assert results["grad_x"].isfinite().all()
    for name in results:
        assert_equal(name, results[name], wanted[name])


@pytest.mark.parametrize("tensor", ARGUMENTS["two_layer"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@each_dtype
def test_nan_and_infinity_spread_as_in_torch(path, dtype, value, tensor):
    problem = integers(SHAPE, dtype, seed=2)
    problem.inputs[tensor].flatten()[7] = value
    results, wanted = fused(problem, "triton"), plain(problem)
    for name in results:
        assert_equal(name, results[name], wanted[name])


@each_dtype
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_the_gradient_at_exactly_0_is_0(path, dtype, zero):
    x = torch.full((5, 9), zero, dtype=dtype, requires_grad=True)
    w1, w2 = (torch.ones(size, dtype=dtype, requires_grad=True) for size in ((20, 9), (3, 20)))
    functional.two_layer(x, w1, w2, backend="triton").sum().backward()
    for leaf in (x, w1, w2):
        assert_equal("gradient", leaf.grad, torch.zeros_like(leaf))
        leaf.grad = None
    functional.linear_relu(x, w1, backend="triton").sum().backward()
    for leaf in (x, w1):
        assert_equal("gradient", leaf.grad, torch.zeros_like(leaf))


def test_what_overflows_float16_is_infinite(path):
    problem = integers(SHAPE, torch.float16, seed=3)
    problem.inputs["b2"].fill_(torch.finfo(torch.float16).max)
    results = fused(problem, "triton")
    assert results["y"].isinf().any()
    assert results["y"].isfinite().any()
    check_exact(problem, results)


@each_dtype
def test_the_same_bits_twice(path, dtype):
    problem = randoms(Shape(200, 40, 70, 10), dtype, seed=4)
    first, second = (fused(problem, "triton") for _ in range(2))
    for name in first:
        assert_same_bits(name, second[name], first[name])


@each_dtype
@each_op
def test_each_gradient_alone_has_the_bits_of_the_full_run(path, dtype, op):
    problem = randoms(SHAPE, dtype, op=op, seed=5)
    full = fused(problem, "triton")
    for name in ARGUMENTS[op]:
        some = fused(problem, "triton", needs=(name,))
        assert_same_bits(name, some[f"grad_{name}"], full[f"grad_{name}"])


def test_float64_is_refused():
    x, w1, w2 = (torch.ones(size, dtype=torch.float64) for size in ((2, 3), (4, 3), (1, 4)))
    with pytest.raises(NotImplementedError, match="float64"):
        functional.two_layer(x, w1, w2, backend="triton")


def test_infinity_meets_no_feature_that_is_not_there():
    """100 hidden features fill no whole block; in the rest of it an infinite x meets zeros."""
    torch.manual_seed(0)
    x = torch.randn(3, 8)
    x[1, 2] = float("inf")
    w1, w2 = -torch.rand(100, 8), torch.randn(4, 100)
    y = functional.two_layer(x, w1, w2, backend="triton")
    expected = torch.nn.functional.linear(torch.nn.functional.linear(x, w1).relu(), w2)
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(y, expected)
