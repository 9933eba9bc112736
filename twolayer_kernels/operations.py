"""The network in torch's own differentiable operations: for whatever looks between the layers.

Each is looked up at the call, so that a mode, a tensor's ``__torch_function__`` or a replaced
``torch.nn.functional.linear`` sees what it would see of the plain network.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
    return like.new_empty(()).expand(shape)


class _Place(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.new_zeros(()).expand(x.shape)

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


def with_stand_ins(
    x: Tensor | None, w: Tensor | None, a: Tensor, own_w: Tensor
) -> tuple[Tensor, Tensor]:
    """``x`` and ``w`` of one layer, as :meth:`Saved.with_stand_ins`."""
    if x is None:
        like = own_w if w is None else w
        x = without_values(a, a.shape[0], like.shape[1] if like.dim() == 2 else 0)
    return x, without_values(a, a.shape[1], x.shape[1]) if w is None else w


class Saved(NamedTuple):
    """What a forward kept for its backward; ``None`` for what no gradient uses."""

    x: Tensor | None
    w1: Tensor | None
    w2: Tensor | None
    b1: Tensor | None
    a: Tensor | None

    def with_stand_ins(self, grad_y: Tensor, own_w1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x``, ``w1`` and ``w2``, tensors without values in the place of those not kept.

        Not the parameters themselves: these may have other shapes by now, or no memory. A width
        that nothing kept tells is no gradient's; the first weight's own may choose the kernel.
        """
        rows, out_features = grad_y.shape
        x, w1, w2, _, a = self
        hidden_features, in_features = own_w1.shape if own_w1.dim() == 2 else (0, 0)
        if a is not None:
            hidden_features = a.shape[1]
        elif w1 is not None:
            hidden_features = w1.shape[0]
        if x is not None:
            in_features = x.shape[1]
        elif w1 is not None:
            in_features = w1.shape[1]
        return (
            without_values(grad_y, rows, in_features) if x is None else x,
            without_values(grad_y, hidden_features, in_features) if w1 is None else w1,
            without_values(grad_y, out_features, hidden_features) if w2 is None else w2,
        )


class Own(NamedTuple):
    """The parameters themselves, which may have changed since, and where ``x`` was in the graph.

    ``place`` is there (see :func:`place_of`) where ``x`` wants a gradient and was not kept.
    """

    place: Tensor | None
    w1: Any
    w2: Any
    b1: Any


def differentiable_gradients(
    grad_y: Tensor, saved: Saved, own: Own, needs: tuple[bool, ...]
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    """As :func:`two_layer_gradients`, of what was saved, connected to what it came from."""
    assert saved.a is not None
    x, w1, w2 = saved.with_stand_ins(grad_y, own.w1)
    if saved.w1 is not None or needs[1]:
        w1 = with_values(own.w1, saved.w1, needs[1])
    if saved.w2 is not None or needs[2]:
        w2 = with_values(own.w2, saved.w2, needs[2])
    b1 = with_values(own.b1, saved.b1, needs[3])
    if saved.x is None:
        x = grad_y.new_zeros(()).expand(x.shape) if own.place is None else own.place
    elif not needs[0]:
        x = x.detach()
    a = connected_activation(x, w1, b1, saved.a, x_is_known=saved.x is not None)
    return two_layer_gradients(grad_y, x, w1, w2, a, needs)


def two_layer_gradients(
    grad_y: Tensor,
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    a: Tensor,
    needs: tuple[bool, ...],
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    """Of x, w1, w2, b1 and b2, for ``x`` of two dimensions.

    For derivatives of these, ``a`` must be connected to what it was computed from: see
    :func:`connected_activation`.
    """
    grad_w2 = grad_y.T @ a if needs[2] else None
    grad_b2 = grad_y.sum(0) if needs[4] else None
    if not (needs[0] or needs[1] or needs[3]):
        return None, None, grad_w2, None, grad_b2
    dh = _masked(grad_y @ w2, a)
    grad_x, grad_w1, grad_b1 = _linear_gradients(dh, x, w1, (needs[0], needs[1], needs[3]))
    return grad_x, grad_w1, grad_w2, grad_b1, grad_b2
