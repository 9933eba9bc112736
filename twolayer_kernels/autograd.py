"""The ``torch.autograd.Function``s: what is saved for backward and which gradients are asked for.

Forward and backward run a backend's kernels. A backward that must itself be
differentiated (``create_graph=True``) is instead written in torch's own
differentiable operations, on an activation that is connected to its inputs
again, so that derivatives of any order flow to every one. A backward asks as a
forward does whether something may see it: a mode may have begun since.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

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


def _direct(
    backend: ModuleType,
    grad_y: Tensor,
    x: Tensor | None,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    a: Tensor | None,
    needs: tuple[bool, bool, bool, bool, bool],
    owners: tuple[Any, ...],
) -> tuple[Gradient, ...]:
    """By the backend's kernels; where ``owners``, the weights, want it, added to their own."""
    gradients: tuple[Gradient, ...]
    if not backend.ADDS_TO_MAIN_GRAD:
        gradients = backend.two_layer_backward(grad_y, x, w1, w2, b1, a, needs)
        return gradients
    mains = _main_grad(owners[0], needs[1]), _main_grad(owners[1], needs[2])
    gradients = backend.two_layer_backward(grad_y, x, w1, w2, b1, a, needs, mains)
    for owner, main in zip(owners, mains, strict=True):
        if main is not None:
            owner.grad_added_to_main_grad = True
    return gradients


def _if_alike(own: Tensor, stand_in: Tensor) -> Tensor:
    """A weight in the place of its stand-in, if it still has its shape and dtype."""
    return own if own.shape == stand_in.shape and own.dtype is stand_in.dtype else stand_in


def _way(*tensors: Tensor | None) -> Way:
    if is_dynamo_compiling():  # compiled autograd traces a backward
        return Way.OPERATORS
    return Way.DIRECT if unseen(*tensors) else transparency.way_of_call(*tensors)[0]


def _name(backend: ModuleType) -> str:
    return backend.__name__.rpartition(".")[2]


def _only_needed(gradients: tuple[Tensor, ...], needs: tuple[bool, ...]) -> tuple[Gradient, ...]:
    return tuple(g if needed else None for g, needed in zip(gradients, needs, strict=True))


def _of_second_bias(grad_y: Tensor, backend: ModuleType, own_w1: Tensor) -> Gradient:
    """Where it is the only gradient that is wanted, for which nothing is kept."""
    if torch.is_grad_enabled() or _way(grad_y) is not Way.DIRECT:
        return grad_y.sum(0)
    nothing = operations.Saved(None, None, None, None, None)
    x, w1, w2 = nothing.with_stand_ins(grad_y, own_w1)
    try:
        gradients: tuple[Gradient, ...] = backend.two_layer_backward(
            grad_y, x, w1, w2, None, None, (False, False, False, False, True)
        )
    except Exception:
        if transparency.why_without_memory(grad_y) is None:
            raise
        return grad_y.sum(0)
    return gradients[4]


def _where_seen(
    way: Way,
    backend: ModuleType,
    grad_y: Tensor,
    saved: operations.Saved,
    own: operations.Own,
    needs: tuple[bool, bool, bool, bool, bool],
) -> tuple[Gradient, ...]:
    """By the registered operator or torch's own operations."""
    x, w1, w2 = saved.with_stand_ins(grad_y, own.w1)
    a = saved.a
    if way is Way.OPERATORS:
        name = _name(backend)
        gradients = ops.two_layer_backward(grad_y, x, w1, w2, saved.b1, a, list(needs), name)
        return _only_needed(gradients, needs)
    if a is None:
        with torch.no_grad():
            is_unseen = unseen(x, w1, saved.b1)
            forward = backend.linear_relu_forward if is_unseen else operations.linear_relu
            a = forward(x, w1, saved.b1)
    if torch.is_grad_enabled():
        return operations.differentiable_gradients(grad_y, saved._replace(a=a), own, needs)
    return operations.two_layer_gradients(grad_y, x, w1, w2, a, needs)


class LinearReLU(torch.autograd.Function):
    """``a = relu(x w^T + b)`` for ``x`` of two dimensions; ``a`` in the shape that is asked for.

    Saved are the result and, of ``x`` and the weight, what a gradient uses. The result is saved
    as it is handed out: what changes it in place is seen.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        b: Tensor | None,
        backend: ModuleType,
        shape: tuple[int, ...] | None,
    ) -> Tensor:
        needs = ctx.needs_input_grad
        a: Tensor = backend.linear_relu_forward(x, w, b)
        if shape is not None:
            a = operations.no_view(a, shape)
        # A weight's detached self keeps the memory that it has: assigning to its .data gives it
        # other memory, which no version tells.
        ctx.save_for_backward(x if needs[1] else None, w.detach() if needs[0] else None, a)
        ctx.set_materialize_grads(False)
        ctx.call = backend, w
        return a

    @staticmethod
    def backward(ctx: Any, grad_a: Tensor | None) -> tuple[Gradient, ...]:
        if grad_a is None:
            return (None,) * 5
        x, value, a = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        backend, own_w = ctx.call
        if a.dim() != 2:
            rows = a.shape[:-1].numel(), a.shape[-1]
            a, grad_a = a.reshape(rows), grad_a.reshape(rows)
        way = Way.OPERATIONS if torch.is_grad_enabled() else _way(grad_a, x, value, a)
        if way is Way.DIRECT and x is not None and backend.CHECKS_ARGUMENTS:
            # A weight that is not used says its shape; it is refused where it has changed since.
            try:
                w = own_w if value is None else value
                return (*backend.linear_relu_backward(grad_a, x, w, a, needs), None, None)
            except Exception:
                pass
        x, w = operations.with_stand_ins(x, value, a, own_w)
        if way is Way.DIRECT:
            try:
                return (*backend.linear_relu_backward(grad_a, x, w, a, needs), None, None)
            except Exception:
                if transparency.why_without_memory(grad_a, x, w, a) is None:
                    raise
        elif way is Way.OPERATORS:
            gradients = ops.linear_relu_backward(grad_a, x, w, a, list(needs), _name(backend))
            return (*_only_needed(gradients, needs), None, None)
        if torch.is_grad_enabled() and needs[0]:
            w = operations.with_values(own_w, value, needs[1])
        return (*operations.linear_relu_gradients(grad_a, x, w, a, needs), None, None)


class TwoLayer(torch.autograd.Function):
    """``y = relu(x w1^T + b1) w2^T + b2`` for ``x`` of two dimensions.

    Saved are the activation (not with ``recompute``), and of ``x`` and the parameters those whose
    values a gradient uses: others may be freed or changed, as in the plain network.
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
        a_is_used = first_layer or needs[2]
        again = recompute and a_is_used
        y: Tensor
        y, a = backend.two_layer_forward(x, w1, w2, b1, b2, a_is_used and not recompute)
        # As in LinearReLU.
        ctx.save_for_backward(
            x if needs[1] or again else None,
            w1.detach() if needs[0] or again else None,
            w2.detach() if first_layer else None,
            b1.detach() if again and b1 is not None else None,
            a,
        )
        ctx.set_materialize_grads(False)
        place = operations.place_of(x) if needs[0] and not needs[1] and not again else None
        ctx.call = backend, place, w1, w2, b1
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None) -> tuple[Gradient, ...]:
        if grad_y is None:
            return (None,) * 7
        needs = ctx.needs_input_grad[:5]
        backend, place, own1, own2, own_b1 = ctx.call
        if not (needs[0] or needs[1] or needs[2] or needs[3]):
            return (*(None,) * 4, _of_second_bias(grad_y, backend, own1), None, None)
        x, value1, value2, b1, a = ctx.saved_tensors
        way = Way.OPERATIONS
        if not torch.is_grad_enabled():
            way = _way(grad_y, x, value1, value2, b1, a)
        if way is Way.DIRECT and backend.CHECKS_ARGUMENTS:
            # A weight that is not used says its shape; it is refused where it has changed since.
            w1 = own1 if value1 is None else value1
            w2 = own2 if value2 is None else value2
            try:
                gradients = backend.two_layer_backward(grad_y, x, w1, w2, b1, a, needs)
                return (*gradients, None, None)
            except Exception:
                pass
        saved = operations.Saved(x, value1, value2, b1, a)
        if way is Way.DIRECT:
            _, w1, w2 = saved.with_stand_ins(grad_y, own1)
            if not backend.CHECKS_ARGUMENTS:
                # In other strides a kernel would be compiled again.
                w1 = w1 if value1 is not None else _if_alike(own1, w1)
                w2 = w2 if value2 is not None else _if_alike(own2, w2)
            try:
                gradients = _direct(backend, grad_y, x, w1, w2, b1, a, needs, (own1, own2))
                return (*gradients, None, None)
            except Exception:
                if transparency.why_without_memory(grad_y, x, w1, w2, b1, a) is None:
                    raise
        own = operations.Own(place, own1, own2, own_b1)
        return (*_where_seen(way, backend, grad_y, saved, own, needs), None, None)


def _past_the_wrapper(kind: type[torch.autograd.Function]) -> Any:
    """``apply`` without torch's wrapper, 2 us of 90.

    That looks for transforms of torch.func, as the rule has done before a direct call, and unwraps
    tensors of those that have ended. So for backends that refuse such tensors, which are then
    unwrapped.
    """
    return super(torch.autograd.Function, kind).apply  # type: ignore[misc]


_linear_relu_applied, _two_layer_applied = map(_past_the_wrapper, (LinearReLU, TwoLayer))


def linear_relu_of(backend: ModuleType) -> Any:
    return _linear_relu_applied if backend.CHECKS_ARGUMENTS else LinearReLU.apply


def two_layer_of(backend: ModuleType) -> Any:
    return _two_layer_applied if backend.CHECKS_ARGUMENTS else TwoLayer.apply
