"""The network in torch's own differentiable operations: for whatever looks between the layers.

Each is looked up at the call, so that a mode, a tensor's ``__torch_function__`` or a replaced
``torch.nn.functional.linear`` sees what it would see of the plain network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import transparency

Gradient = Tensor | None
_unsafe_view = torch.ops.aten._unsafe_view.default


def linear_relu(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    return torch.relu(F.linear(x, w, b))


def two_layer(x: Tensor, w1: Tensor, w2: Tensor, b1: Tensor | None, b2: Tensor | None) -> Tensor:
    return F.linear(linear_relu(x, w1, b1), w2, b2)


def no_view(y: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A result of ours in another shape, which nobody holds but the caller."""
    other: Tensor = _unsafe_view(y, shape)
    return other


def _masked(grad: Tensor, a: Tensor) -> Tensor:
    """``grad * (a > 0)`` with the gradient of a NaN passing, as in ``torch.relu``."""
    return torch.where(a.detach() <= 0, 0, grad)


def _linear_gradients(
    dh: Tensor, x: Tensor | None, w: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Gradient, Gradient, Gradient]:
    return (
        dh @ w if needs[0] else None,
        None if x is None or not needs[1] else dh.T @ x,
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


def connected_activation(
    x: Tensor, w: Tensor, b: Tensor | None, a: Tensor, *, x_is_known: bool = True
) -> Tensor:
    """``a``, differentiable by the ``x``, ``w`` and ``b`` that it was computed from.

    These may have changed since: of their values only those are used that a gradient of ``a`` uses.
    Without ``x_is_known`` its values are zeros, and w wants no gradient.
    """
    if torch.compiler.is_dynamo_compiling() or torch._C._are_functorch_transforms_active():
        # Where a Function of ours cannot be.
        if x_is_known:
            return linear_relu(x, w, b)
        h = F.linear(x, w, b)
        return a.detach() + _masked(h - h.detach(), a)
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


def without_values(like: Tensor, *shape: int) -> Tensor:
    """In the place of a tensor of this shape whose values nobody uses; it takes no memory."""
    return like.new_zeros(()).expand(shape)


class _Place(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return without_values(x, *x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def place_of(x: Tensor) -> Tensor:
    """Where ``x`` is in the graph now, without its values: these may be freed or changed."""
    with torch.enable_grad():
        place: Tensor = _Place.apply(x)  # type: ignore[no-untyped-call]
    return place


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
    if value is p or any(transparency.is_stand_in(type(t)) for t in (p, value)):  # as it was saved
        return p
    if p.data_ptr() == value.data_ptr() and p.dtype == value.dtype:
        return p
    return _Former.apply(p, value)  # type: ignore[no-untyped-call]


Pair = tuple[Any, Tensor | None]


def connected(
    x: tuple[Tensor | None, Tensor | None],
    first: Pair,
    second: Pair,
    bias: Pair,
    a: Tensor,
    needs: tuple[bool, ...],
) -> tuple[Tensor, Any, Any, Tensor]:
    """``x``, ``w1``, ``w2`` and the activation, for gradients that are to be differentiated.

    Args:
        x: as it was saved, and its :func:`place_of`; ``None`` each where it is not there.
        first, second, bias: w1, w2 and b1, and what was saved of them; as in :func:`with_values`.
    """
    w1, w2 = with_values(*first, needs[1]), with_values(*second, needs[2])
    b1 = with_values(*bias, needs[3])
    saved, place = x
    if saved is not None:
        known = saved if needs[0] else saved.detach()
    else:
        known = without_values(a, a.shape[0], w1.shape[1]) if place is None else place
    return known, w1, w2, connected_activation(known, w1, b1, a, x_is_known=saved is not None)


def two_layer_gradients(
    grad_y: Tensor,
    x: Tensor | None,
    w1: Tensor,
    w2: Tensor,
    a: Tensor | None,
    needs: tuple[bool, bool, bool, bool, bool],
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    """Of x, w1, w2, b1 and b2, for ``x`` of two dimensions; what no gradient uses may be ``None``.

    For derivatives of these, ``a`` must be connected to what it was computed from: see
    :func:`connected_activation`.
    """
    grad_b2 = grad_y.sum(0) if needs[4] else None
    if a is None:
        return None, None, None, None, grad_b2
    grad_w2 = grad_y.T @ a if needs[2] else None
    if not (needs[0] or needs[1] or needs[3]):
        return None, None, grad_w2, None, grad_b2
    dh = _masked(grad_y @ w2, a)
    grad_x, grad_w1, grad_b1 = _linear_gradients(dh, x, w1, (needs[0], needs[1], needs[3]))
    return grad_x, grad_w1, grad_w2, grad_b1, grad_b2
