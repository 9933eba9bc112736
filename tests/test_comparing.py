"""Each comparison accepts right results and rejects planted faults; so does the NaN poison."""

from __future__ import annotations

import math
import re
import sys

import numpy as np
import pytest
import torch

from twolayer_kernels.backends import reference
from twolayer_kernels.functional import two_layer

from .comparing import (
    Compared,
    Exact,
    assert_equal,
    assert_same_bits,
    assert_within_budget,
)
from .problems import (
    DTYPES,
    Problem,
    check_budget,
    check_exact,
    dtype_id,
    exact,
    fused,
    integers,
    randoms,
)
from .shapes import LAYOUTS, Shape, size_id

SHAPE = Shape(33, 70, 65, 10)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)


def rejects(check, *args, match: str | None = None) -> None:
    with pytest.raises(AssertionError, match=match):
        check(*args)


# Faults in the results: each is one that a kernel could have.


def _swap_two_rows(results, problem):
    results["y"][[4, 5]] = results["y"][[5, 4]]


def _transpose_a_block(results, problem):
    block = results["grad_w1"][16:32, 16:32]
    block.copy_(block.T.clone())


def _drop_the_last_biases(results, problem):
    results["y"][:, -4:] -= problem.inputs["b2"][-4:]


def _miss_the_tail_column(results, problem):
    results["grad_x"][:, -1] = 0


def _leave_one_element_unwritten(results, problem):
    results["grad_w2"][3, 64] = math.nan


def _lose_the_last_sample(results, problem):
    results["grad_b2"] -= problem.grad_out[-1]


def _add_the_first_product_twice(results, problem):
    x, w1 = problem.inputs["x"], problem.inputs["w1"]
    grad_h = exact(problem)["grad_h"].to(x.dtype)
    results["grad_w1"] += grad_h[:1].T @ x[:1]
    assert w1.shape == results["grad_w1"].shape


FAULTS = [
    _swap_two_rows,
    _transpose_a_block,
    _drop_the_last_biases,
    _miss_the_tail_column,
    _leave_one_element_unwritten,
    _lose_the_last_sample,
    _add_the_first_product_twice,
]


@each_dtype
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
@pytest.mark.parametrize("make", [integers, randoms])
def test_faults_are_found(make, fault, dtype):
    problem = make(SHAPE, dtype, seed=1)
    results = fused(problem, "reference")

    def check():
        if make is integers:
            check_exact(problem, results)
        else:
            check_budget([problem], [results])

    check()
    fault(results, problem)
    rejects(check)


@each_dtype
@pytest.mark.parametrize("make", [integers, randoms])
def test_a_gradient_that_passes_at_zero_is_found(monkeypatch, make, dtype):
    """The mask ``a >= 0`` in place of ``a > 0``: every gradient passes."""
    monkeypatch.setattr(reference, "_masked", lambda grad, a: torch.where(a < 0, 0, grad))
    problem = make(SHAPE, dtype, seed=2)
    results = fused(problem, "reference")
    if make is integers:
        rejects(check_exact, problem, results, match="grad_")
    else:
        rejects(check_budget, [problem], [results], match="grad_")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_id)
def test_truncation_in_place_of_rounding_is_found(dtype):
    problem = integers(Shape(64, 600, 600, 200), dtype, seed=3)
    results = fused(problem, "reference")
    check_exact(problem, results)
    wide = exact(problem)["y"]
    bits = torch.int16
    away = (results["y"].double().abs() > wide.abs()).to(bits)
    assert away.any()
    results["y"] = (results["y"].view(bits) - away).view(dtype)  # one step towards 0
    rejects(check_exact, problem, results, match="^y")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_id)
def test_accumulation_in_the_narrow_dtype_is_found(dtype):
    problem = randoms(Shape(64, 40, 400, 200), dtype, seed=4)
    results = fused(problem, "reference")
    check_budget([problem], [results])
    x, w1, b1 = (problem.inputs[name] for name in ("x", "w1", "b1"))
    w2, b2 = problem.inputs["w2"], problem.inputs["b2"]
    a = torch.relu(x.double() @ w1.double().T + b1.double()).to(dtype)
    y = b2.expand(64, 200)
    for k in range(a.shape[1]):
        y = y + a[:, k : k + 1] * w2[:, k]
    results["y"] = y
    rejects(check_budget, [problem], [results], match="^y")


def test_float32_sums_are_found_in_float64():
    problem = randoms(SHAPE, torch.float64, seed=5)
    results = fused(problem, "torch")
    check_budget([problem], [results])
    narrow = Problem(
        problem.op, {n: t.float() for n, t in problem.inputs.items()}, problem.grad_out.float()
    )
    results["grad_w1"] = fused(narrow, "torch")["grad_w1"].double()
    rejects(check_budget, [problem], [results], match="grad_w1")


# The comparisons themselves.


def test_equal_takes_nan_for_nan_and_0_for_minus_0():
    assert_equal("t", torch.tensor([math.nan, 0.0]), torch.tensor([math.nan, -0.0]))


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (torch.tensor([1.0, math.nan, 3.0]), r"1 of 3 elements.*\n  \[1\]: got nan, expected 2.0"),
        (torch.tensor([1.0, 2.0]), r"expected torch.float32 of shape \(3,\).*shape \(2,\)"),
        (torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), "got torch.float64"),
        (None, "got None"),
    ],
    ids=["nan", "shape", "dtype", "none"],
)
def test_equal_rejects(actual, message):
    rejects(assert_equal, "t", actual, torch.tensor([1.0, 2.0, 3.0]), match=message)


def test_an_expected_none_must_be_none():
    assert_equal("t", None, None)
    rejects(assert_equal, "t", torch.zeros(1), None, match="expected None")


def test_same_bits_rejects_minus_0_and_the_next_number():
    one = torch.tensor([0.0, 1.0, math.nan])
    assert_same_bits("t", one, one.clone())
    rejects(assert_same_bits, "t", torch.tensor([-0.0, 1.0, math.nan]), one, match=r"\[0\]")
    rejects(assert_same_bits, "t", one.nextafter(torch.tensor(9.0)), one, match=r"\[1\]")


def test_the_report_names_the_worst_elements_and_the_place():
    expected = torch.zeros(8, 40)
    actual = expected.clone()
    actual[2:4, 39] = torch.tensor([1.0, 5.0])
    with pytest.raises(AssertionError) as caught:
        assert_equal("y", actual, expected)
    report = str(caught.value)
    assert re.search(r"2 of 320 elements.*\n  \[3, 39\]: got 5.0.*\n  \[2, 39\]: got 1.0", report)
    assert "axis 0: only at 2, 3 (of 8)" in report
    assert "axis 1: only at 39 (of 40)" in report


@pytest.mark.parametrize(
    ("ours", "within"),
    [(2.9, True), (4.0, False), (-2.9, True), (-3.5, False), (math.nan, False)],
)
def test_the_budget_is_twice_torchs_error_and_one_eps(ours, within):
    eps = torch.finfo(torch.float32).eps
    value = torch.tensor([0.0], dtype=torch.float64)
    compared = Compared(
        actual=torch.tensor([4 * ours * eps]),
        torchs=torch.tensor([4 * eps]),
        exact=Exact(value, value, scale=torch.tensor([4.0], dtype=torch.float64)),
    )
    if within:
        assert_within_budget("t", [compared])
    else:
        rejects(assert_within_budget, "t", [compared], match="over the budget of 3,")


def test_an_element_of_scale_0_must_be_exact():
    zero = torch.zeros(1, dtype=torch.float64)
    exact_zero = Exact(zero, zero, zero)
    assert_within_budget("t", [Compared(torch.zeros(1), torch.zeros(1), exact_zero)])
    off = Compared(torch.tensor([1e-30]), torch.zeros(1), exact_zero)
    rejects(assert_within_budget, "t", [off])


# The poison.


@pytest.mark.usefixtures("poisoned_memory")
@each_dtype
def test_fresh_memory_of_torch_is_nan(dtype):
    from torch import empty  # a name bound before the test sees the poison as well

    like = torch.zeros(3, 4, dtype=dtype)
    fresh = [
        empty(5, dtype=dtype),
        torch.empty((3, 4), dtype=dtype).T,
        torch.empty_like(like),
        like.new_empty(7),
        torch.empty_strided((2, 2), (1, 2), dtype=dtype),
        torch.empty_permuted((2, 3), (1, 0), dtype=dtype),
        torch.empty(0, dtype=dtype).resize_(6),
    ]
    assert all(t.isnan().all() for t in fresh)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_fresh_memory_of_numpy_is_nan(dtype):
    fresh = np.empty((3, 4), dtype), np.empty_like(np.zeros(3, dtype)), np.empty(5, dtype=dtype)
    assert all(np.isnan(array).all() for array in fresh)


@pytest.mark.skipif(sys.platform != "linux", reason="the filling of malloc is glibc's")
@pytest.mark.usefixtures("poisoned_memory")
def test_fresh_memory_of_malloc_is_huge():
    scratch = np.ndarray((50_000,), np.float32)  # numpy's own, by malloc, not by numpy.empty
    assert (np.abs(scratch) > 3e38).all()


@pytest.mark.usefixtures("poisoned_memory")
def test_a_kernel_that_writes_nothing_is_found(monkeypatch):
    problem = integers(SHAPE, torch.float32, seed=6)

    def writes_nothing(x, w1, w2, b1, b2, keep_activation):
        return torch.empty(x.shape[0], w2.shape[0]), None

    monkeypatch.setattr(reference, "two_layer_forward", writes_nothing)
    y = two_layer(**problem.inputs, backend="reference")
    rejects(assert_equal, "y", y, exact(problem)["y"].float(), match="got nan")


# The layouts.


@pytest.mark.parametrize("size", [(7, 5), (9,)], ids=["matrix", "vector"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_hold_the_values_in_other_memory(layout, size):
    t = torch.arange(1.0, 1.0 + math.prod(size)).reshape(size)
    laid_out = LAYOUTS[layout](t)
    assert laid_out.shape == t.shape
    if not layout.startswith("same"):
        assert torch.equal(laid_out, t)
    if layout not in ("contiguous", "same_row", "same_column") and len(size) == 2:
        assert not laid_out.is_contiguous()


def test_shapes_have_readable_ids():
    assert size_id(Shape(64, 1000, 100, 10)) == "64x1000x100x10"
