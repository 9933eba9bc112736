"""The error budget with float32 multiplied as a GPU does it; and one mask for a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twolayer_kernels.backends import triton as backend
from twolayer_kernels.backends.triton import layers, narrow

from ..comparing import assert_same_bits
from ..problems import check_budget, draw_count, fused, randoms
from ..shapes import Shape
from . import matrix_units

pytestmark = pytest.mark.usefixtures("poisoned_memory")

LONG = Shape(64, 1000, 100, 10)
# One sample and one hidden feature: the sum over 1000 inputs, ten products of K = 1.
CHAIN = Shape(1, 1000, 1, 10)


@pytest.fixture(autouse=True)
def used(monkeypatch):
    return matrix_units.emulate(monkeypatch)


def check(shape, op="two_layer", *, draws):
    draws = min(draws, draw_count(shape, torch.float32))
    problems = [randoms(shape, torch.float32, op=op, seed=1000 + i) for i in range(draws)]
    check_budget(problems, [fused(problem, "triton") for problem in problems])


CASES = {
    "general long": ("general", LONG, "two_layer"),
    "general chain": ("general", CHAIN, "two_layer"),
    "general one layer": ("general", CHAIN, "linear_relu"),
    "narrow chain": ("narrow", CHAIN, "two_layer"),
}


@pytest.mark.parametrize(("path", "shape", "op"), CASES.values(), ids=CASES)
def test_the_budget_holds(force, path, shape, op):
    force.path(path)
    check(shape, op, draws=4 if shape == LONG else 8)


def test_short_sums_in_tf32x3_break_it(force, monkeypatch, used):
    force.path("general")
    monkeypatch.setattr(layers, "product_precision_of", lambda dtype, k: "tf32x3")
    with pytest.raises(AssertionError, match=r"grad_b1: .* over the budget"):
        check(LONG, draws=4)
    assert set(used) == {"tf32x3"}


def test_one_chain_of_1000_terms_breaks_it(force, monkeypatch):
    def chained(acc, left, right, precision):
        return narrow.tl.dot(left, right, acc, input_precision=precision)

    force.path("narrow")
    monkeypatch.setattr(narrow, "_added", chained)
    with pytest.raises(AssertionError, match="over the budget"):
        check(CHAIN, draws=8)


def test_recompute_has_the_mask_of_the_forward(path):
    """Pre-activations that are 0 to the last bit; rounded otherwise they would not be."""
    torch.manual_seed(0)
    x, w1, w2 = torch.randn(5, 70), torch.randn(33, 70), torch.randn(10, 33)
    _, a = backend.two_layer_forward(x, w1, w2, torch.zeros(33), None, True)
    b1 = -a[0]
    y, a = backend.two_layer_forward(x, w1, w2, b1, None, True)
    assert not a[0].any()
    grad_y = torch.randn(y.shape)
    kept, again = (
        backend.two_layer_backward(grad_y, x, w1, w2, b1, saved, (True,) * 4 + (False,))
        for saved in (a, None)
    )
    for name, first, second in zip(("x", "w1", "w2", "b1"), kept[:4], again[:4], strict=True):
        assert_same_bits(name, second, first)


def test_the_units_round_as_they_should():
    one, step = np.float32(1), np.float32(2**-10)
    values = np.array([1 + 2**-11, -1 - 2**-11, 1 + 2**-12, np.inf], np.float32)
    expected = np.array([one + step, -one - step, one, np.inf], np.float32)
    assert (matrix_units.to_tf32(values) == expected).all()
    cut = matrix_units.cut_to_float32(np.array([1 + 2**-24 + 2**-25, -1 - 1.5 * 2**-23]))
    assert (cut == np.array([1, -1 - 2**-23], np.float32)).all()
