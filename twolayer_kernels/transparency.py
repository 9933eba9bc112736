"""Who wants to see a call: the one rule by which it goes straight to the kernels, or does not.

The rule in words is in docs/design.md, "What may see a call". ``unseen`` and ``plain_parameters``
answer it for the common case in a compiled call each; ``way_of_call`` and ``why_called`` find out
what there is to see, and say it.
"""

from __future__ import annotations

import re
import sys
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, profiler
from torch.nn.modules import module as module_hooks
from torch.nn.utils import parametrize

try:
    from . import _cpu
except ImportError:  # the other backends work without the extension
    _cpu = None  # type: ignore[assignment]


# Whether torch.jit.script reads on: no class or option of ours is known to it.
is_scripting = torch.jit.is_scripting  # type: ignore[attr-defined]


class Way(Enum):
    """How a call is computed."""

    DIRECT = "the backend's kernels"
    OPERATORS = "the registered operators"
    OPERATIONS = "torch's own operations"
    OVERRIDE = "whatever an argument's __torch_function__ does"


_EXACT = (Tensor, nn.Parameter)
_LINEAR_FORWARD = nn.Linear.forward
_QUESTIONS = (
    torch._C._len_torch_dispatch_stack,
    torch._C._len_torch_function_stack,
    torch._C._get_tracing_state,
    torch._C._are_functorch_transforms_active,
)
_VARIABLES: tuple[tuple[Any, str, Any], ...] = (
    (forward_ad, "_current_level", -1),
    (profiler, "_is_profiler_enabled", False),
    (torch.compiler, "_is_compiling_flag", False),
    (torch.nn.functional, "linear", torch._C._nn.linear),
    (torch, "relu", torch._C._VariableFunctions.relu),
)
_GLOBAL_HOOKS = (
    module_hooks._global_forward_hooks,
    module_hooks._global_forward_pre_hooks,
    module_hooks._global_backward_hooks,
    module_hooks._global_backward_pre_hooks,
)
# Where torch's own function modes are made that concern no function of ours.
_MODES_THAT_DO_NOT_LOOK = (
    "torch.utils._device",
    "torch.export",
    "torch._export",
    "torch.fx",
    "torch._dynamo",
    "torch._functorch",
    "torch._higher_order_ops",
)
# torch's own kinds of tensors that stand for others while an operator is looked at.
_STAND_INS = (
    ("torch._subclasses.fake_tensor", "FakeTensor"),
    ("torch._subclasses.functional_tensor", "FunctionalTensor"),
)
# Kinds that are exactly a Tensor in Python and have no memory of their own.
_WITHOUT_MEMORY = {
    "Functionalize": "functionalized",
    "Batched": "batched by a vmap",
    "FuncTorchBatched": "batched by a vmap",
    "FuncTorchGradWrapper": "wrapped by a transform",
    "ZeroTensor": "a zero without memory",
}


def _by_asking(*arguments: object) -> bool:
    return way_of_call(*arguments)[0] is Way.DIRECT


def _by_asking_layers(linear1: Any, linear2: Any) -> tuple[Any, Any, Any, Any] | None:
    return None  # then the modules look at the layers themselves


if _cpu is not None:
    _cpu.watch(
        nn.Linear,
        _EXACT,
        _QUESTIONS,
        tuple((vars(owner), name, idle) for owner, name, idle in _VARIABLES),
        _GLOBAL_HOOKS,
    )
    unseen, plain_parameters = _cpu.unseen, _cpu.plain_parameters
else:
    unseen, plain_parameters = _by_asking, _by_asking_layers


# ---- the layers ----


def is_observed(layer: nn.Module) -> bool:
    """Whether hooks run when the module is called."""
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
    )


def has_own_forward(layer: Any) -> bool:
    """Whether a forward was put on the object.

    The attribute is never ``None``: it is read because ``torch.compile`` asks again, before each
    call, for what was read of it, but not for what was in the dictionary.
    """
    return "forward" in layer.__dict__ or layer.forward is None


def has_global_hooks() -> bool:
    return bool(
        module_hooks._global_forward_hooks
        or module_hooks._global_forward_pre_hooks
        or module_hooks._global_backward_hooks
        or module_hooks._global_backward_pre_hooks
    )


def why_called(layers: dict[str, Any], kinds: tuple[type, ...] = (nn.Linear,)) -> str | None:
    """Why these layers must be called as the modules that they are, or ``None``: they need not.

    Args:
        layers: by their names in the model.
        kinds: the classes whose weight and bias say all; a parametrized one of them, too.
    """
    if has_global_hooks():
        return "hooks are registered for all modules"
    if nn.Linear.forward is not _LINEAR_FORWARD:
        return "nn.Linear has another forward than torch's"
    for name, layer in layers.items():
        kind: Any = type(layer)
        if kind not in kinds and not (
            isinstance(layer, nn.Module)
            and parametrize.type_before_parametrizations(layer) in kinds
        ):
            return f"{name} is a {kind.__name__}"
        if has_own_forward(layer):
            return f"{name} has a forward of its own"
        if is_observed(layer):
            return f"{name} has hooks"
    return None


# ---- the arguments, and what is going on around the call ----


def is_stand_in(kind: type) -> bool:
    """Whether it is the class of torch's fake or functional tensors."""
    return (kind.__module__, kind.__name__) in _STAND_INS


def _acts_as_plain(kind: type) -> bool:
    """A subclass that torch's operations treat as a Tensor, as they do subclasses of Parameter."""
    return (
        kind.__torch_function__ is torch._C._disabled_torch_function_impl  # type: ignore[attr-defined]
        and kind.__torch_dispatch__ is torch._C._disabled_torch_dispatch_impl  # type: ignore[attr-defined]
    )


def why_replaced() -> str | None:
    """What was put in the place of the plain network's functions, or ``None``."""
    if torch.nn.functional.linear is not torch._C._nn.linear:
        return "torch.nn.functional.linear is another function than torch's"
    if torch.relu is not torch._C._VariableFunctions.relu:
        return "torch.relu is another function than torch's"
    return None


def function_modes() -> list[Any]:
    """Those that are active, in a form that ``torch.compile`` can trace, too."""
    return [torch._C._get_function_stack_at(i) for i in range(torch._C._len_torch_function_stack())]


def looks_at_functions(mode: Any) -> bool:
    """A mode that sets the default device looks at none, and a compiler's at operators only."""
    return not type(mode).__module__.startswith(_MODES_THAT_DO_NOT_LOOK)


def _in_onnx_export() -> bool:
    """Without loading the exporters, which nobody exports without."""
    return "torch.onnx._internal.exporter" in sys.modules and torch.onnx.is_in_onnx_export()


def _without_memory(tensor: Tensor) -> str | None:
    if tensor.is_nested:
        return "nested"
    keys = str(torch._C._dispatch_keys(tensor))  # not all of them have a name in Python
    found = _WITHOUT_MEMORY.keys() & set(re.findall(r"\w+", keys))
    return _WITHOUT_MEMORY[found.pop()] if found else None


def why_without_memory(*arguments: object) -> str | None:
    """What keeps a kernel from reading or writing memory though all are exactly Tensors."""
    if torch._C._dispatch_tls_is_dispatch_key_included(torch._C.DispatchKey.Functionalize):
        return "functionalization is active"
    for argument in arguments:
        meaning = _without_memory(argument) if isinstance(argument, Tensor) else None
        if meaning is not None:
            return f"an argument is {meaning}"
    return None


def way_of_call(*arguments: object, backend: str | None = None) -> tuple[Way, str]:
    """How to compute a call with these arguments now, and why so.

    Args:
        arguments: the tensors (or what came in their place), ``None`` for what is not there.
        backend: as named by the caller. A tracer gets torch's own operations, so that what it
            writes needs no library of ours; of a named backend, its operator.
    """
    given = [a for a in arguments if a is not None]
    for a in given:
        if not isinstance(a, Tensor) and hasattr(type(a), "__torch_function__"):
            return Way.OVERRIDE, f"an argument is a {type(a).__name__}"
    kinds = {type(a) for a in given if isinstance(a, Tensor)}
    for mode in function_modes():
        if looks_at_functions(mode):
            return Way.OPERATIONS, f"the function mode {type(mode).__name__} is active"
    for kind in kinds:
        if kind not in _EXACT and not _acts_as_plain(kind) and not is_stand_in(kind):
            return Way.OPERATIONS, f"an argument is a {kind.__name__}"
    if torch._C._are_functorch_transforms_active():
        return Way.OPERATIONS, "a transform of torch.func is active"
    if forward_ad._current_level >= 0:
        return Way.OPERATIONS, "forward-mode differentiation is active"
    replaced = why_replaced()
    if replaced is not None:
        return Way.OPERATIONS, replaced
    if torch._C._get_tracing_state() is not None or _in_onnx_export():
        way = Way.OPERATIONS if backend is None else Way.OPERATORS
        return way, "torch.jit.trace or torch.onnx.export is looking"
    for kind in kinds:
        if is_stand_in(kind):
            return Way.OPERATORS, f"an argument is a {kind.__name__}"
    if torch._ops._len_torch_dispatch_stack_pre_dispatch():  # type: ignore[no-untyped-call]
        return Way.OPERATORS, "a tracer is looking before autograd"
    modes = torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    if modes:
        names = ", ".join(type(mode).__name__ for mode in modes)
        return Way.OPERATORS, f"dispatch modes are active: {names}"
    if torch.compiler._is_compiling_flag:
        return Way.OPERATORS, "a compiler is looking"
    if profiler._is_profiler_enabled:
        return Way.OPERATORS, "a profiler is running"
    reason = why_without_memory(*given)
    if reason is not None:
        return Way.OPERATIONS, reason
    return Way.DIRECT, "nothing else is to be seen"


def check_memory(op: str, **arguments: Any) -> None:
    """Raises ValueError for a tensor whose storage is smaller than its elements need."""
    for name, t in arguments.items():
        if type(t) not in _EXACT or t.layout is not torch.strided or t.device.type != "cpu":
            continue
        storage = t.untyped_storage()
        last = sum((n - 1) * stride for n, stride in zip(t.shape, t.stride(), strict=True))
        needed = (t.storage_offset() + last + 1) * t.element_size() if t.numel() else 0
        if storage.nbytes() < needed:
            raise ValueError(
                f"{op}: {name} must have memory for its elements, {needed} bytes,"
                f" got a storage of {storage.nbytes()} bytes"
            )
