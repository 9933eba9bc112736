"""The network in torch's own differentiable operations: for whatever looks between the layers.

Each is looked up at the call, so that a mode, a tensor's ``__torch_function__`` or a replaced
``torch.nn.functional.linear`` sees what it would see of the plain network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Gradient = Tensor | None


def linear_relu(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    return torch.relu(F.linear(x, w, b))


def two_layer(x: Tensor, w1: Tensor, w2: Tensor, b1: Tensor | None, b2: Tensor | None) -> Tensor:
    return F.linear(linear_relu(x, w1, b1), w2, b2)


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


def linear_relu_gradients(
    grad_a: Tensor, x: Tensor, w: Tensor, a: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Gradient, Gradient, Gradient]:
    """Of x, w and b, for ``x`` of two dimensions; ``a`` gives the mask alone."""
    return _linear_gradients(_masked(grad_a, a), x, w, needs)


class _Activation(torch.autograd.Function):
    """An activation that is known, as the result of what it was computed from."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, a: Tensor) -> Tensor:
        needs = ctx.needs_input_grad
        ctx.save_for_backward(x if needs[1] else None, w if needs[0] else None, a)
        ctx.set_materialize_grads(False)
        return a.detach()

    @staticmethod
    def backward(ctx: Any, grad_a: Tensor | None) -> tuple[Gradient, ...]:
        if grad_a is None:
            return (None,) * 4
        x, w, a = ctx.saved_tensors
        return (*linear_relu_gradients(grad_a, x, w, a, ctx.needs_input_grad[:3]), None)


def connected_activation(x: Tensor, w: Tensor, b: Tensor | None, a: Tensor) -> Tensor:
    """``a``, differentiable by the ``x``, ``w`` and ``b`` that it was computed from.

    These may have changed since: of their values only those are used that a gradient of ``a`` uses.
    """
    if torch.compiler.is_dynamo_compiling() or torch._C._are_functorch_transforms_active():
        return linear_relu(x, w, b)  # where a Function of ours cannot be
    known: Tensor = _Activation.apply(x, w, b, a)  # type: ignore[no-untyped-call]
    return known


class _Former(torch.autograd.Function):
    """The values that a parameter had, as its own."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, value: Tensor) -> Tensor:
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, None]:
        return grad, None


def with_values(p: Any, value: Tensor | None, needed: bool) -> Any:
    """A parameter for gradients that are to be differentiated: itself if it wanted a gradient.

    Args:
        value: as it was saved; ``None`` where no gradient uses it.
    """
    if p is None:
        return None
    if value is None:
        return p if needed else p.detach()
    if not needed:
        return value
    if p.data_ptr() == value.data_ptr() and p.dtype == value.dtype:
        return p
    return _Former.apply(p, value)  # type: ignore[no-untyped-call]


def two_layer_gradients(
    grad_y: Tensor,
    x: Tensor | None,
    w1: Tensor,
    w2: Tensor,
    a: Tensor,
    needs: tuple[bool, bool, bool, bool, bool],
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    """Of x, w1, w2, b1 and b2, for ``x`` of two dimensions.

    For derivatives of these, ``a`` must be connected to what it was computed from: see
    :func:`connected_activation`.
    """
    grad_w2 = grad_y.T @ a if needs[2] else None
    grad_b2 = grad_y.sum(0) if needs[4] else None
    if x is None or not (needs[0] or needs[1] or needs[3]):
        return None, None, grad_w2, None, grad_b2
    dh = _masked(grad_y @ w2, a)
    grad_x, grad_w1, grad_b1 = _linear_gradients(dh, x, w1, (needs[0], needs[1], needs[3]))
    return grad_x, grad_w1, grad_w2, grad_b1, grad_b2
