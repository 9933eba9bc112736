"""Weights that carry a float32 ``main_grad`` get their gradient added to it, and no ``.grad``."""

from __future__ import annotations

import pytest
import torch

from twolayer_kernels import FusedTwoLayer


def assert_close(actual, wanted):
    """As far apart as rounding the output makes two right results."""
    bound = 1e-5 if wanted.dtype == torch.float32 else 1e-2
    torch.testing.assert_close(actual.float(), wanted.float(), rtol=bound, atol=bound)


def backward(model, x):
    model(x).square().sum().backward()


@pytest.fixture(params=[torch.float32, torch.float16], ids=["float32", "float16"])
def pair(request):
    """The same network twice, on the kernels and on the reference, and an input."""
    torch.manual_seed(0)
    ours = FusedTwoLayer(20, 30, 5, backend="triton", dtype=request.param)
    exact = FusedTwoLayer(20, 30, 5, backend="reference", dtype=request.param)
    exact.load_state_dict(ours.state_dict())
    return ours, exact, torch.randn(7, 20, dtype=request.param)


def test_gradients_are_added_in_float32(pair):
    ours, exact, x = pair
    weights = (ours.linear1.weight, ours.linear2.weight)
    for w in weights:
        w.main_grad = torch.ones(w.shape)
        w.grad_added_to_main_grad = False
    for _ in range(2):
        backward(ours, x)
        backward(exact, x)
    for w, wanted in zip(weights, (exact.linear1.weight, exact.linear2.weight), strict=True):
        assert w.grad is None
        assert w.grad_added_to_main_grad is True
        assert w.main_grad.dtype == torch.float32
        assert_close(w.main_grad - 1, wanted.grad)
    assert_close(ours.linear1.bias.grad, exact.linear1.bias.grad)


def test_one_weight_alone(pair):
    ours, exact, x = pair
    w = ours.linear1.weight
    w.main_grad, w.grad_added_to_main_grad = torch.zeros(w.shape), False
    backward(ours, x)
    backward(exact, x)
    assert w.grad is None
    assert_close(ours.linear2.weight.grad, exact.linear2.weight.grad)


def test_nothing_happens_where_nobody_looks_at_the_flag(pair):
    ours, _, x = pair
    w = ours.linear1.weight
    w.main_grad = torch.zeros(w.shape)
    backward(ours, x)
    assert w.grad is not None
    assert not w.main_grad.any()


def test_another_dtype_is_left_alone(pair):
    ours, _, x = pair
    w = ours.linear1.weight
    w.main_grad, w.grad_added_to_main_grad = torch.zeros(w.shape, dtype=torch.float64), False
    backward(ours, x)
    assert w.grad is not None
    assert w.grad_added_to_main_grad is False
