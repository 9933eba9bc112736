"""The rungs that keep raw weights: NumPy, tensors, autograd, samples in columns, own Function.

Each function makes one side of a rung and returns its step: one forward, loss,
backward and update, which returns the loss before the update; or, for ``fit``,
what takes so many steps in one call and returns their losses. The plain sides
keep weights as the tutorials do, (in, out); the fused sides keep them as torch
does, (out, in), except in ``columns``, where the fused operation reads
transposed views.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import numpy as fused_numpy
from ...functional import linear_relu, two_layer
from .problem import Array, Problem

Step = Callable[[], float]
Fit = Callable[[int], Array]

LR = 1e-6


def numpy_plain(problem: Problem, bias: bool) -> Step:
    x, y = problem.arrays()
    w1, w2, b1, b2 = problem.weights()

    def step() -> float:
        h = x @ w1
        if bias:
            h += b1
        a = np.maximum(h, 0)
        y_pred = a @ w2
        if bias:
            y_pred += b2
        error = y_pred - y
        grad_y = 2.0 * error
        grad_w2 = a.T @ grad_y
        grad_h = grad_y @ w2.T
        grad_h[h < 0] = 0
        grad_w1 = x.T @ grad_h
        w1[...] -= LR * grad_w1
        w2[...] -= LR * grad_w2
        if bias:
            b1[...] -= LR * grad_h.sum(0)
            b2[...] -= LR * grad_y.sum(0)
        return float(np.square(error).sum())

    return step


def numpy_fused(problem: Problem, bias: bool) -> Step:
    x, y = problem.arrays()
    start = problem.weights()
    w1, w2 = np.ascontiguousarray(start.w1.T), np.ascontiguousarray(start.w2.T)
    b1, b2 = (start.b1, start.b2) if bias else (None, None)
    needs = (False, True, True, bias, bias)

    def step() -> float:
        y_pred, a = fused_numpy.two_layer_forward(x, w1, w2, b1, b2)
        error = y_pred - y
        grads = fused_numpy.two_layer_backward(2.0 * error, x, w1, w2, b1, a, needs)
        for parameter, grad in zip((w1, w2, b1, b2), grads[1:], strict=True):
            if parameter is not None and grad is not None:
                parameter -= LR * grad
        return float(np.square(error).sum())

    return step


def numpy_fit(problem: Problem, bias: bool) -> Fit:
    x, y = problem.arrays()
    start = problem.weights()
    w1, w2 = np.ascontiguousarray(start.w1.T), np.ascontiguousarray(start.w2.T)
    b1, b2 = (start.b1, start.b2) if bias else (None, None)
    return lambda steps: fused_numpy.fit(
        x, y, w1, w2, b1, b2, steps=steps, lr=LR, loss="mse_sum", nan="continue"
    )


def tensors_plain(problem: Problem) -> Step:
    x, y = problem.tensors()
    start = problem.weights()
    w1, w2 = problem.tensor(start.w1), problem.tensor(start.w2)

    def step() -> float:
        h = x.mm(w1)
        a = h.clamp(min=0)
        error = a.mm(w2) - y
        grad_y = 2.0 * error
        grad_w2 = a.t().mm(grad_y)
        grad_h = grad_y.mm(w2.t())
        grad_h[h < 0] = 0
        grad_w1 = x.t().mm(grad_h)
        w1.sub_(LR * grad_w1)
        w2.sub_(LR * grad_w2)
        return error.pow(2).sum().item()

    return step


def tensors_fused(problem: Problem) -> Step:
    """The loss's gradient by hand; the fused backward turns it into the weights' gradients."""
    x, y = problem.tensors()
    start = problem.weights()
    weights = problem.parameter(start.w1.T), problem.parameter(start.w2.T)

    def step() -> float:
        y_pred = two_layer(x, *weights, backend=problem.backend)
        with torch.no_grad():
            error = y_pred - y
            grads = torch.autograd.grad(y_pred, weights, 2.0 * error)
            for weight, grad in zip(weights, grads, strict=True):
                weight.sub_(LR * grad)
        return error.pow(2).sum().item()

    return step


def _descend(loss: Tensor, weights: tuple[Tensor, ...]) -> float:
    """Backward, an update that autograd does not see, and gradients set back to zero."""
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for weight in weights:
            assert weight.grad is not None
            weight -= LR * weight.grad
            weight.grad.zero_()
    return loss.item()


def autograd_plain(problem: Problem) -> Step:
    x, y = problem.tensors()
    start = problem.weights()
    w1, w2 = problem.parameter(start.w1), problem.parameter(start.w2)

    def step() -> float:
        loss = (x.mm(w1).clamp(min=0).mm(w2) - y).pow(2).sum()
        return _descend(loss, (w1, w2))

    return step


def autograd_fused(problem: Problem) -> Step:
    x, y = problem.tensors()
    start = problem.weights()
    w1, w2 = problem.parameter(start.w1.T), problem.parameter(start.w2.T)

    def step() -> float:
        loss = (two_layer(x, w1, w2, backend=problem.backend) - y).pow(2).sum()
        return _descend(loss, (w1, w2))

    return step


def _columns(problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``X`` (in, batch), ``Y`` (out, batch) and the weights (in, hidden), (hidden, out)."""
    x, y = problem.arrays()
    start = problem.weights()
    return (
        problem.tensor(x.T),
        problem.tensor(y.T),
        problem.parameter(start.w1),
        problem.parameter(start.w2),
    )


def columns_plain(problem: Problem) -> Step:
    x, y, w1, w2 = _columns(problem)

    def step() -> float:
        loss = (w2.t().mm(w1.t().mm(x).clamp(min=0)) - y).pow(2).sum()
        return _descend(loss, (w1, w2))

    return step


def columns_fused(problem: Problem) -> Step:
    """Every transpose below is a view: the kernels read the memory of ``X`` and the weights."""
    x, y, w1, w2 = _columns(problem)

    def step() -> float:
        y_pred = two_layer(x.T, w1.T, w2.T, backend=problem.backend).T
        return _descend((y_pred - y).pow(2).sum(), (w1, w2))

    return step


class OwnReLU(torch.autograd.Function):
    """A ReLU as a tutorial's reader writes it: its gradient passes where the input is exactly 0."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        ctx.save_for_backward(h)
        return h.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad_a: Tensor) -> Tensor:
        (h,) = ctx.saved_tensors
        grad_h = grad_a.clone()
        grad_h[h < 0] = 0
        return grad_h


def function_plain(problem: Problem) -> Step:
    x, y = problem.tensors()
    start = problem.weights()
    w1, w2 = problem.parameter(start.w1), problem.parameter(start.w2)

    def step() -> float:
        a: Tensor = OwnReLU.apply(x.mm(w1))  # type: ignore[no-untyped-call]
        return _descend((a.mm(w2) - y).pow(2).sum(), (w1, w2))

    return step


def function_fused(problem: Problem) -> Step:
    """``linear_relu`` takes the place of the product and the caller's own ReLU."""
    x, y = problem.tensors()
    start = problem.weights()
    w1, w2 = problem.parameter(start.w1.T), problem.parameter(start.w2)

    def step() -> float:
        a = linear_relu(x, w1, backend=problem.backend)
        return _descend((a.mm(w2) - y).pow(2).sum(), (w1, w2))

    return step


def chain(problem: Problem, fused: bool) -> tuple[Step, Callable[[], tuple[float, ...]]]:
    """``y = w x + b`` at (1, 2, 3), and a look at the gradients of x, w and b.

    The fused side is ``linear_relu`` with every size 1; ReLU leaves the positive ``y`` as it is.
    """
    x, w, b = (problem.parameter(np.array(value)) for value in (1.0, 2.0, 3.0))

    def step() -> float:
        for leaf in (x, w, b):
            leaf.grad = None
        if fused:
            a = linear_relu(x.view(1, 1), w.view(1, 1), b.view(1), backend=problem.backend)
            y = a.view(())
        else:
            y = w * x + b
        y.backward()  # type: ignore[no-untyped-call]
        return y.item()

    def gradients() -> tuple[float, ...]:
        return tuple(leaf.grad.item() for leaf in (x, w, b) if leaf.grad is not None)

    return step, gradients
