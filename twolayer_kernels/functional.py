"""The public functions: check, pick a backend, and run with or without autograd.

A backend that checks its arguments itself, before it writes anything, is called without a check
before it: the search for what is wrong, and the words for it, come only after it has refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling
from torch.overrides import handle_torch_function

from . import autograd, checks, dispatch, flops, operations, ops, transparency
from .checks import ArrayChecks
from .transparency import Way, unseen

flops.register()

# Of no device in particular: a quarter of the cost of asking for one.
_is_any_autocast_enabled = torch._C._is_any_autocast_enabled

_CHECKS = ArrayChecks(
    Tensor,
    "torch.Tensor",
    (torch.float32, torch.float64, torch.bfloat16, torch.float16),
    torch.strided,
)


def _autocast_enabled(device_type: str) -> bool:
    """Meta tensors know no such mode, and asking for theirs is an error."""
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def _autocast(device_type: str, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The arguments in the dtype that autocast asks of a matrix product, as ``nn.Linear`` does."""
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(
        t.to(dtype)
        if isinstance(t, Tensor) and t.is_floating_point() and t.dtype != torch.float64
        else t
        for t in tensors
    )


def _as_autocast_would(*arguments: Any) -> tuple[Any, ...]:
    """Whatever was passed, in the dtype that it would have been computed in."""
    x = arguments[0]
    if isinstance(x, Tensor) and _autocast_enabled(x.device.type):
        return _autocast(x.device.type, *arguments)
    return arguments


def _check_untraced(check: Callable[..., None], *arguments: Any) -> None:
    """``torch.jit.trace`` would record the sizes that are compared, and warn of each."""
    state = torch._C._get_tracing_state()
    if state is None:
        check(*_as_autocast_would(*arguments))
        return
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        check(*_as_autocast_would(*arguments))
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


def _is_nested(x: Any) -> bool:
    """Nested tensors have no shape to check; torch's operations know them."""
    return isinstance(x, Tensor) and x.is_nested


def check_operations(backend: str | None, reason: str) -> None:
    """Refuses a named backend other than torch where torch's own operations are needed."""
    if backend not in (None, "torch"):
        checks.check_backend(backend)
        raise NotImplementedError(
            f"backend={backend!r} cannot run this call: {reason}, which needs torch's own"
            " operations, as backend=None takes here"
        )


def two_layer(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None = None,
    b2: Tensor | None = None,
    *,
    recompute: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Two linear layers with a ReLU between them: ``y = relu(x w1^T + b1) w2^T + b2``.

    Args:
        x: ``(..., in_features)``; float32, float64, bfloat16 or float16, any strides.
        w1: ``(hidden_features, in_features)``, dtype and device of ``x``.
        w2: ``(out_features, hidden_features)``, dtype and device of ``x``.
        b1: ``(hidden_features,)`` or ``None``.
        b2: ``(out_features,)`` or ``None``.
        recompute: keep only ``x`` for backward and compute the activation again there;
            saves ``batch * hidden_features`` elements for one more matrix product.
        backend: ``None`` picks by :mod:`twolayer_kernels.dispatch`; ``"cpu"``, ``"triton"``,
            ``"torch"`` and ``"reference"`` (float64 inside) are used or refused, never replaced.

    Returns:
        ``(..., out_features)``, dtype and device of ``x``.

    Raises:
        TypeError: an argument is no tensor, or of another dtype than ``x``.
        ValueError: a shape or device does not fit, or ``backend`` is unknown.
        NotImplementedError: the named backend cannot run these tensors.

    Source: backward is the chain rule, ``dh = (dy w2) * (a > 0)``, ``dw2 = dy^T a``,
    ``dw1 = dh^T x``, ``dx = dh w1``; the gradient at exactly 0 is 0, as in ``torch.relu``.

    Example:
        >>> import torch
        >>> from twolayer_kernels.functional import two_layer
        >>> two_layer(torch.ones(2, 3), torch.ones(4, 3), torch.ones(1, 4))
        tensor([[12.],
                [12.]])
    """
    if is_dynamo_compiling() or not unseen(x, w1, w2, b1, b2):
        return _seen(_TWO_LAYER, (x, w1, w2, b1, b2), backend, recompute=recompute)
    try:
        return _two_layer(x, w1, w2, b1, b2, recompute, backend)
    except Exception as error:
        failure = error
    try:
        return _refused(_TWO_LAYER, failure, (x, w1, w2, b1, b2), backend, recompute=recompute)
    finally:
        del failure  # it holds this frame, and so the tensors, in a cycle


def _two_layer(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    b2: Tensor | None,
    recompute: bool,
    backend: str | None,
) -> Tensor:
    device_type = "cpu" if x.is_cpu else x.device.type  # a third of the cost where it is
    given = x, w1, w2, b1, b2  # torch's own operations cast for themselves, and keep what they cast
    if _is_any_autocast_enabled() and _autocast_enabled(device_type):
        x, w1, w2, b1, b2 = _autocast(device_type, x, w1, w2, b1, b2)  # type: ignore[assignment]
    if recompute is not True and recompute is not False:
        checks.check_flag("recompute", recompute)
    chosen = dispatch.backend_for(device_type, x.dtype, backend)
    if not chosen.CHECKS_ARGUMENTS:
        _CHECKS.two_layer(x, w1, w2, b1, b2)
        chosen = dispatch.backend_for_sizes(x, w1.shape[0], w2.shape[0], backend)
        if not recompute and dispatch.is_torchs_own(chosen):
            return operations.two_layer(*given)
    x2d = x if x.dim() == 2 else x.reshape(x.shape[:-1].numel(), x.shape[-1])
    needs_graph = torch.is_grad_enabled() and (
        x.requires_grad
        or w1.requires_grad
        or w2.requires_grad
        or (b1 is not None and b1.requires_grad)
        or (b2 is not None and b2.requires_grad)
    )
    if needs_graph:
        apply = autograd.two_layer_of(chosen)
        y: Tensor = apply(x2d, w1, w2, b1, b2, chosen, recompute)
    else:
        y, _ = chosen.two_layer_forward(x2d, w1, w2, b1, b2, False)
    if x.dim() == 2:
        return y
    shape = *x.shape[:-1], w2.shape[0]
    # As in torch: of addmm's result a view, else none.
    return operations.no_view(y, shape) if b2 is None else y.reshape(shape)


def _needs_graph(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _flattened(x: Tensor) -> Tensor:
    """Two dimensions, in a way that keeps the batch of a traced tensor symbolic."""
    if x.dim() == 1:
        return x.unsqueeze(0)
    return x if x.dim() == 2 else x.flatten(0, -2)


def _way(backend: str | None, *arguments: Any) -> tuple[Way, str]:
    """:func:`transparency.way_of_call`, in a form that ``torch.compile`` can trace, too."""
    if not is_dynamo_compiling():
        return transparency.way_of_call(*arguments, backend=backend)
    for a in arguments:
        if isinstance(a, Tensor) and type(a) not in (Tensor, nn.Parameter):
            return Way.OPERATIONS, f"an argument is a {type(a).__name__}"
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return Way.OPERATIONS, "a transform of torch.func is active"
    # What the compiler reads here it asks about again before each call of what it has compiled.
    if any(map(transparency.looks_at_functions, transparency.function_modes())):
        return Way.OPERATIONS, "a function mode is active"
    replaced = transparency.why_replaced()
    if replaced is not None:
        return Way.OPERATIONS, replaced
    return Way.OPERATORS, "a compiler is looking"


class _Operation(NamedTuple):
    """One of the two public functions, for calls that something may see.

    ``Given`` below are its tensors, ``None`` for a bias that is not there.
    """

    public: Callable[..., Tensor]
    arguments: tuple[str, ...]
    check: Callable[..., None]
    plain: Callable[..., Tensor]  # torch's own operations
    direct: Callable[..., Tensor]  # with or without autograd, by the backend's kernels
    operator: Callable[..., Tensor]  # as a registered operator, on a batch of one dimension
    is_plain: Callable[[Tensor, str | None], bool]  # whether torch's kernels run it at any size


Given = tuple[Any, ...]


def _seen(op: _Operation, given: Given, backend: str | None, **options: Any) -> Tensor:
    """Where something may see the call: see :mod:`twolayer_kernels.transparency`."""
    way, reason = _way(backend, *given)
    if way is Way.OVERRIDE:
        y: Tensor = handle_torch_function(op.public, given, *given, **options, backend=backend)
        return y
    if way is Way.OPERATORS:
        return _traced(op, given, backend, **options)
    if way is Way.OPERATIONS:
        return _in_operations(op, given, backend, reason, **options)
    op.check(*_as_autocast_would(*given))
    with torch._C.DisableTorchFunction():  # a mode that sets the default device must not set ours
        return op.direct(*given, **options, backend=backend)


def _in_operations(
    op: _Operation, given: Given, backend: str | None, reason: str, recompute: bool = False
) -> Tensor:
    checks.check_flag("recompute", recompute)
    if not _is_nested(given[0]):
        _check_untraced(op.check, *given)
    check_operations(backend, reason)
    return op.plain(*given)


def _traced(op: _Operation, given: Given, backend: str | None, recompute: bool = False) -> Tensor:
    """As a registered operator, which a compiler can put into its graph.

    Or in torch's own operations, where these would run in it: a compiler can fuse them.
    """
    checks.check_flag("recompute", recompute)
    checks.check_backend(backend)
    _check_untraced(op.check, *given)
    x, *others = _as_autocast_would(*given)
    if not recompute and op.is_plain(x, backend):
        return op.plain(*given)
    options = {"recompute": True} if recompute else {}
    y = op.operator(_flattened(x), *others, backend, **options)
    return y if x.dim() == 2 else y.reshape(*x.shape[:-1], y.shape[-1])


def _refused(
    op: _Operation, failure: Exception, given: Given, backend: str | None, **options: Any
) -> Tensor:
    """After a direct call failed: another way, or an error that says what is wrong."""
    try:
        alive = unwrap_dead_wrappers(given)  # of a transform of torch.func that has ended
        if any(own is not former for own, former in zip(alive, given, strict=True)):
            return op.public(*alive, **options, backend=backend)
        reason = transparency.why_without_memory(*given)
        if reason is not None:
            return _in_operations(op, given, backend, reason, **options)
        # Says what is wrong with the arguments, if they are.
        op.check(*_as_autocast_would(*given))
        named = dict(zip(op.arguments, given, strict=True))
        transparency.check_memory(op.public.__name__, **named)
        raise failure
    finally:
        del failure  # as in the caller


def _two_layer_operator(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    b2: Tensor | None,
    backend: str | None,
    recompute: bool = False,
) -> Tensor:
    keep = not recompute and _needs_graph(x, w1, w2, b1)
    y: Tensor = ops.two_layer(x, w1, w2, b1, b2, keep, backend)[0]
    return y


def _two_layer_is_plain(x: Tensor, backend: str | None) -> bool:
    return dispatch.is_certainly_torchs_own(x.device.type, x.device.index, x.dtype, backend)


def _linear_relu_is_plain(x: Tensor, backend: str | None) -> bool:
    return backend == "torch" or (backend is None and x.device.type != "cpu")


def linear_relu(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, backend: str | None = None
) -> Tensor:
    """One linear layer and its ReLU: ``a = relu(x w^T + b)``.

    Args:
        x: ``(..., in_features)``; float32, float64, bfloat16 or float16, any strides.
        w: ``(out_features, in_features)``, dtype and device of ``x``.
        b: ``(out_features,)`` or ``None``.
        backend: as for :func:`two_layer`.

    Returns:
        ``(..., out_features)``, dtype and device of ``x``. NaN stays NaN.

    Raises:
        TypeError, ValueError, NotImplementedError: as for :func:`two_layer`.

    Example:
        >>> import torch
        >>> from twolayer_kernels.functional import linear_relu
        >>> linear_relu(torch.tensor([[1.0, -2.0]]), torch.eye(2))
        tensor([[1., 0.]])
    """
    if is_dynamo_compiling() or not unseen(x, w, b):
        return _seen(_LINEAR_RELU, (x, w, b), backend)
    try:
        return _linear_relu(x, w, b, backend)
    except Exception as error:
        failure = error
    try:
        return _refused(_LINEAR_RELU, failure, (x, w, b), backend)
    finally:
        del failure  # it holds this frame, and so the tensors, in a cycle


def _linear_relu(x: Tensor, w: Tensor, b: Tensor | None, backend: str | None) -> Tensor:
    device_type = "cpu" if x.is_cpu else x.device.type  # a third of the cost where it is
    given = x, w, b
    if _is_any_autocast_enabled() and _autocast_enabled(device_type):
        x, w, b = _autocast(device_type, x, w, b)  # type: ignore[assignment]
    chosen = dispatch.backend_for(device_type, x.dtype, backend)
    if not chosen.CHECKS_ARGUMENTS:
        _CHECKS.linear_relu(x, w, b)
        if dispatch.is_torchs_own(chosen):
            return operations.linear_relu(*given)
    x2d, shape = x, None
    if x.dim() != 2:
        x2d = x.reshape(x.shape[:-1].numel(), x.shape[-1])
        shape = (*x.shape[:-1], w.shape[0])
    if torch.is_grad_enabled() and (
        x.requires_grad or w.requires_grad or (b is not None and b.requires_grad)
    ):
        apply = autograd.linear_relu_of(chosen)
        a: Tensor = apply(x2d, w, b, chosen, shape)
        return a
    a = chosen.linear_relu_forward(x2d, w, b)
    return a if shape is None else operations.no_view(a, shape)


_TWO_LAYER = _Operation(
    two_layer,
    ("x", "w1", "w2", "b1", "b2"),
    _CHECKS.two_layer,
    operations.two_layer,
    _two_layer,
    _two_layer_operator,
    _two_layer_is_plain,
)
_LINEAR_RELU = _Operation(
    linear_relu,
    ("x", "w", "b"),
    _CHECKS.linear_relu,
    operations.linear_relu,
    _linear_relu,
    ops.linear_relu,
    _linear_relu_is_plain,
)
