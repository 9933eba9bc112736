"""The ``torch.autograd.Function``s: what is saved for backward and which gradients are asked for.

Forward and backward run a backend's kernels. A backward that must itself be
differentiated (``create_graph=True``) is instead written in torch's own
differentiable operations, on an activation computed again by ``linear_relu``,
so that derivatives of any order flow to every input. A backward asks as a
forward does whether something may see it: a mode may have begun since.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import operations, ops, transparency
from .transparency import Way, unseen

Gradient = Tensor | None


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


def _way(*tensors: Tensor | None) -> Way:
    if torch.compiler.is_dynamo_compiling():  # compiled autograd traces a backward
        return Way.OPERATORS
    return Way.DIRECT if unseen(*tensors) else transparency.way_of_call(*tensors)[0]


def _name(backend: ModuleType) -> str:
    return backend.__name__.rpartition(".")[2]


def _only_needed(gradients: tuple[Tensor, ...], needs: tuple[bool, ...]) -> tuple[Gradient, ...]:
    return tuple(g if needed else None for g, needed in zip(gradients, needs, strict=True))


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
        way = Way.OPERATIONS if torch.is_grad_enabled() else _way(grad_a, x, w, a)
        if way is Way.DIRECT:
            try:
                return (*ctx.backend.linear_relu_backward(grad_a, x, w, a, needs), None)
            except Exception:
                if transparency.why_without_memory(grad_a, x, w, a) is None:
                    raise
        elif way is Way.OPERATORS:
            gradients = ops.linear_relu_backward(grad_a, x, w, a, list(needs), _name(ctx.backend))
            return (*_only_needed(gradients, needs), None)
        return (*operations.linear_relu_gradients(grad_a, x, w, a, needs), None)


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
        way = Way.OPERATIONS if torch.is_grad_enabled() else _way(grad_y, x, w1, w2, b1, a)
        if way is Way.DIRECT:
            try:
                if backend.ADDS_TO_MAIN_GRAD:
                    gradients = _with_main_grads(backend, grad_y, x, w1, w2, b1, a, needs)
                    return (*gradients, None, None)
                return (*backend.two_layer_backward(grad_y, x, w1, w2, b1, a, needs), None, None)
            except Exception:
                if transparency.why_without_memory(grad_y, x, w1, w2, b1, a) is None:
                    raise
        elif way is Way.OPERATORS and x is not None:
            gradients = ops.two_layer_backward(
                grad_y, x, w1, w2, b1, a, list(needs), _name(backend)
            )
            return (*_only_needed(gradients, needs), None, None)
        if x is not None and (a is None or torch.is_grad_enabled()):
            # Connected to x, w1 and b1 again where the gradients are to be differentiated.
            if unseen(x, w1, b1):
                a = LinearReLU.apply(x, w1, b1, backend)  # type: ignore[no-untyped-call]
            else:
                a = operations.linear_relu(x, w1, b1)
        return (*operations.two_layer_gradients(grad_y, x, w1, w2, a, needs), None, None)
