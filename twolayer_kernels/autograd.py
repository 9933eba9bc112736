"""The ``torch.autograd.Function``s: what is saved for backward and which gradients are asked for.

Forward and backward run a backend's kernels. A backward that must itself be
differentiated (``create_graph=True``) is instead written in torch's own
differentiable operations, on an activation computed again by ``linear_relu``,
so that derivatives of any order flow to every input.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Gradient = Tensor | None


def _masked(grad: Tensor, a: Tensor) -> Tensor:
    """``grad * (a > 0)`` with the gradient of a NaN passing, as in ``torch.relu``."""
    return torch.where(a.detach() <= 0, 0, grad)


def _linear_gradients(
    dh: Tensor, x: Tensor, w: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Gradient, Gradient, Gradient]:
    return (
        dh @ w if needs[0] else None,
        dh.T @ x if needs[1] else None,
        dh.sum(0) if needs[2] else None,
    )


def _main_grad(w: Tensor, needed: bool) -> Tensor | None:
    """Where a weight wants its gradient added: its float32 ``main_grad``, if it says that it does.

    The attributes are Megatron's; ``grad_added_to_main_grad`` is there (as ``False``) on a weight
    whose owner looks at it after backward.
    """
    if not needed or not hasattr(w, "grad_added_to_main_grad"):
        return None
    main: Tensor | None = getattr(w, "main_grad", None)
    if main is None or main.dtype != torch.float32 or not main.is_contiguous():
        return None
    return main


def _with_main_grads(
    backend: ModuleType,
    grad_y: Tensor,
    x: Tensor | None,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    a: Tensor | None,
    needs: tuple[bool, bool, bool, bool, bool],
) -> tuple[Gradient, ...]:
    mains = _main_grad(w1, needs[1]), _main_grad(w2, needs[2])
    gradients: tuple[Gradient, ...] = backend.two_layer_backward(
        grad_y, x, w1, w2, b1, a, needs, mains
    )
    for w, main in zip((w1, w2), mains, strict=True):
        if main is not None:
            w.grad_added_to_main_grad = True  # type: ignore[attr-defined]
    return gradients


class LinearReLU(torch.autograd.Function):
    """``a = relu(x w^T + b)`` for ``x`` of two dimensions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, backend: ModuleType) -> Tensor:
        a: Tensor = backend.linear_relu_forward(x, w, b)
        ctx.save_for_backward(x, w, a)
        ctx.backend = backend
        return a

    @staticmethod
    def backward(ctx: Any, grad_a: Tensor) -> tuple[Gradient, ...]:
        x, w, a = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            return (*_linear_gradients(_masked(grad_a, a), x, w, needs), None)
        return (*ctx.backend.linear_relu_backward(grad_a, x, w, a, needs), None)


class TwoLayer(torch.autograd.Function):
    """``y = relu(x w1^T + b1) w2^T + b2`` for ``x`` of two dimensions.

    Saved are ``x`` and the activation (``x`` alone with ``recompute``); the
    parameters are kept by reference. ``x`` is not kept where no gradient uses it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w1: Tensor,
        w2: Tensor,
        b1: Tensor | None,
        b2: Tensor | None,
        backend: ModuleType,
        recompute: bool,
    ) -> Tensor:
        needs = ctx.needs_input_grad
        first_layer = needs[0] or needs[1] or needs[3]
        keep = not recompute and (first_layer or needs[2])
        y: Tensor
        y, a = backend.two_layer_forward(x, w1, w2, b1, b2, keep)
        x_is_used = first_layer or (recompute and needs[2])
        ctx.save_for_backward(x if x_is_used else None, w1, w2, b1, a)
        ctx.backend = backend
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Gradient, ...]:
        x, w1, w2, b1, a = ctx.saved_tensors
        needs = ctx.needs_input_grad[:5]
        backend = ctx.backend
        if not torch.is_grad_enabled():
            if backend.ADDS_TO_MAIN_GRAD:
                gradients = _with_main_grads(backend, grad_y, x, w1, w2, b1, a, needs)
                return (*gradients, None, None)
            return (*backend.two_layer_backward(grad_y, x, w1, w2, b1, a, needs), None, None)
        if x is not None:
            a = LinearReLU.apply(x, w1, b1, backend)  # type: ignore[no-untyped-call]
        grad_w2 = grad_y.T @ a if needs[2] else None
        grad_b2 = grad_y.sum(0) if needs[4] else None
        if not (needs[0] or needs[1] or needs[3]):
            return None, None, grad_w2, None, grad_b2, None, None
        dh = _masked(grad_y @ w2, a)
        grad_x, grad_w1, grad_b1 = _linear_gradients(dh, x, w1, (needs[0], needs[1], needs[3]))
        return grad_x, grad_w1, grad_w2, grad_b1, grad_b2, None, None
