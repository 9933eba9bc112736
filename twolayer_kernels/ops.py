"""The kernels as registered operators, for ``torch.compile``, ``torch.export`` and AOTInductor.

A compiler cannot look into an extension; it needs a name, a schema, the shapes that come out and
the operator that is the gradient. Eager calls do not pass here: see docs/design.md.

``torch.ops.twolayer_kernels.two_layer`` and ``linear_relu`` are differentiable; their
``*_backward`` are not, a second derivative takes torch's operations in their place. What an
operator has no tensor for (an activation that is not kept, a gradient that is not needed) comes
back as an empty one, since schemas have no optional results.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import dispatch, operations, transparency

NAMESPACE = "twolayer_kernels"
_library: Any = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]

_SCHEMAS = {
    "two_layer": "(Tensor x, Tensor w1, Tensor w2, Tensor? b1, Tensor? b2, bool keep_activation,"
    " str? backend) -> (Tensor y, Tensor a)",
    "two_layer_backward": "(Tensor grad_y, Tensor x, Tensor w1, Tensor w2, Tensor? b1, Tensor? a,"
    " bool[] needs, str? backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "linear_relu": "(Tensor x, Tensor w, Tensor? b, str? backend) -> Tensor",
    "linear_relu_backward": "(Tensor grad_a, Tensor x, Tensor w, Tensor a, bool[] needs,"
    " str? backend) -> (Tensor, Tensor, Tensor)",
}


def _nothing(like: Tensor) -> Tensor:
    return like.new_empty(0)


def _all_there(gradients: tuple[Tensor | None, ...], like: Tensor) -> tuple[Tensor, ...]:
    return tuple(_nothing(like) if g is None else g for g in gradients)


# ---- what runs ----


def _two_layer(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    b2: Tensor | None,
    keep_activation: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    chosen = dispatch.backend_for_sizes(x, w1.shape[0], w2.shape[0], backend)
    y, a = chosen.two_layer_forward(x, w1, w2, b1, b2, keep_activation)
    # In rows of samples, as the fake kernel says; the CPU backend may have the other layout.
    return y, _nothing(x) if a is None else a.contiguous()


def _two_layer_backward(
    grad_y: Tensor,
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    a: Tensor | None,
    needs: list[bool],
    backend: str | None,
) -> tuple[Tensor, ...]:
    chosen = dispatch.backend_for_sizes(x, w1.shape[0], w2.shape[0], backend)
    gradients = chosen.two_layer_backward(grad_y, x, w1, w2, b1, a, tuple(needs))
    return _all_there(gradients, grad_y)


def _linear_relu(x: Tensor, w: Tensor, b: Tensor | None, backend: str | None) -> Tensor:
    a: Tensor = dispatch.backend_for(x.device.type, x.dtype, backend).linear_relu_forward(x, w, b)
    return a


def _linear_relu_backward(
    grad_a: Tensor, x: Tensor, w: Tensor, a: Tensor, needs: list[bool], backend: str | None
) -> tuple[Tensor, ...]:
    chosen = dispatch.backend_for(x.device.type, x.dtype, backend)
    return _all_there(chosen.linear_relu_backward(grad_a, x, w, a, tuple(needs)), grad_a)


# ---- what shapes come out ----


def _fake_two_layer(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    b2: Tensor | None,
    keep_activation: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    y = x.new_empty(x.shape[0], w2.shape[0])
    return y, x.new_empty(x.shape[0], w1.shape[0]) if keep_activation else _nothing(x)


def _fake_gradients(grad: Tensor, needs: list[bool], *inputs: Tensor | int) -> tuple[Tensor, ...]:
    """New contiguous tensors of the inputs' shapes; a number is a bias's size."""
    shapes = [(i,) if isinstance(i, int | torch.SymInt) else i.shape for i in inputs]
    return tuple(
        grad.new_empty(shape) if needed else _nothing(grad)
        for shape, needed in zip(shapes, needs, strict=True)
    )


def _fake_two_layer_backward(
    grad_y: Tensor,
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    a: Tensor | None,
    needs: list[bool],
    backend: str | None,
) -> tuple[Tensor, ...]:
    return _fake_gradients(grad_y, needs, x, w1, w2, w1.shape[0], w2.shape[0])


def _fake_linear_relu(x: Tensor, w: Tensor, b: Tensor | None, backend: str | None) -> Tensor:
    return x.new_empty(x.shape[0], w.shape[0])


def _fake_linear_relu_backward(
    grad_a: Tensor, x: Tensor, w: Tensor, a: Tensor, needs: list[bool], backend: str | None
) -> tuple[Tensor, ...]:
    return _fake_gradients(grad_a, needs, x, w, w.shape[0])


# ---- what the gradient is ----


def _value(p: Tensor | None, used: bool) -> Tensor | None:
    """What is saved of a parameter, where a gradient uses its values.

    Its detached self keeps the memory that it has, whatever is assigned to its ``.data``.
    """
    if p is None or not used:
        return None
    return p if torch.compiler.is_compiling() or transparency.is_stand_in(type(p)) else p.detach()


def _save_two_layer(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w1, w2, b1, _, keep_activation, backend = inputs
    needs = ctx.needs_input_grad
    first_layer = needs[0] or needs[1] or needs[3]
    again = not keep_activation and any(needs[:4])
    keeps_x = needs[1] or again
    place = None
    # A compiler's graphs are not differentiated again; nor should they hold places.
    if needs[0] and not keeps_x and not torch.compiler.is_compiling():
        if transparency.is_stand_in(type(x)):  # a tracer would record its place
            keeps_x = True
        else:
            place = operations.place_of(x)
    ctx.save_for_backward(
        x if keeps_x else None,
        _value(w1, needs[0] or again),
        _value(w2, first_layer),
        _value(b1, again),
        output[1] if keep_activation else None,
    )
    ctx.call = backend, operations.Own(place, w1, w2, b1)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate_two_layer(
    ctx: Any, grad_y: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    needs = tuple(ctx.needs_input_grad[:5])
    if grad_y is None:
        return (None,) * 7
    if not any(needs[:4]):  # nothing was kept
        return (*(None,) * 4, grad_y.sum(0), None, None)
    backend, own = ctx.call
    saved = operations.Saved(*ctx.saved_tensors)
    if torch.is_grad_enabled():  # the gradients are to be differentiated
        if saved.a is None:
            assert saved.x is not None
            assert saved.w1 is not None
            with torch.no_grad():
                saved = saved._replace(a=operations.linear_relu(saved.x, saved.w1, saved.b1))
        found = operations.differentiable_gradients(grad_y, saved, own, needs)
        return (*found, None, None)
    gradients = two_layer_backward(
        grad_y, *saved.with_stand_ins(grad_y, own.w1), saved.b1, saved.a, list(needs), backend
    )
    return (*(g if n else None for g, n in zip(gradients, needs, strict=True)), None, None)


def _save_linear_relu(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, w, _, backend = inputs
    needs = ctx.needs_input_grad
    ctx.save_for_backward(x if needs[1] else None, _value(w, needs[0]), output)
    ctx.call = backend, w
    ctx.set_materialize_grads(False)


def _differentiate_linear_relu(ctx: Any, grad_a: Tensor | None) -> tuple[Tensor | None, ...]:
    needs = tuple(ctx.needs_input_grad[:3])
    if grad_a is None:
        return (None,) * 4
    x, value, a = ctx.saved_tensors
    backend, own_w = ctx.call
    x, w = operations.with_stand_ins(x, value, a, own_w)
    if torch.is_grad_enabled():
        w = w if value is None else operations.with_values(own_w, value, needs[1])
        return (*operations.linear_relu_gradients(grad_a, x, w, a, needs), None)
    gradients = linear_relu_backward(grad_a, x, w, a, list(needs), backend)
    return (*(g if n else None for g, n in zip(gradients, needs, strict=True)), None)


for _name, _run, _fake in (
    ("two_layer", _two_layer, _fake_two_layer),
    ("two_layer_backward", _two_layer_backward, _fake_two_layer_backward),
    ("linear_relu", _linear_relu, _fake_linear_relu),
    ("linear_relu_backward", _linear_relu_backward, _fake_linear_relu_backward),
):
    _library.define(_name + _SCHEMAS[_name], tags=torch.Tag.pt2_compliant_tag)
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{_name}", _fake, lib=_library)

torch.library.register_autograd(
    f"{NAMESPACE}::two_layer",
    _differentiate_two_layer,
    setup_context=_save_two_layer,
    lib=_library,
)
torch.library.register_autograd(
    f"{NAMESPACE}::linear_relu",
    _differentiate_linear_relu,
    setup_context=_save_linear_relu,
    lib=_library,
)

two_layer = torch.ops.twolayer_kernels.two_layer
two_layer_backward = torch.ops.twolayer_kernels.two_layer_backward
linear_relu = torch.ops.twolayer_kernels.linear_relu
linear_relu_backward = torch.ops.twolayer_kernels.linear_relu_backward
