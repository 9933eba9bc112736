"""Which backend runs a call, and why: the rule by device, dtype and size, and explicit choices."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import checks

# The backend that serves a device when the caller names none. Measurements behind the CPU's line
# are in docs/performance.md; on CUDA they decide by size, see backends/triton/measurements.py.
_BY_DEVICE = {"cpu": "cpu"}
_OTHERWISE = "torch"


class Choice(NamedTuple):
    """The backend for a device and dtype, and the reason in a sentence."""

    backend: ModuleType
    reason: str


@cache
def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(f".backends.{name}", __package__)
    except ModuleNotFoundError as error:
        raise NotImplementedError(f"backend={name!r} is not available: {error}") from error


@cache
def choose(device_type: str, dtype: torch.dtype, backend: str | None) -> Choice:
    """The backend for tensors of this device and dtype.

    Raises:
        TypeError, ValueError: ``backend`` is not one of the known names.
        NotImplementedError: the named backend cannot run such tensors.
    """
    checks.check_backend(backend)
    if backend is not None:
        module = _load(backend)
        problem = module.unsupported(device_type, dtype)
        if problem is not None:
            raise NotImplementedError(f"backend={backend!r} cannot run this call: {problem}")
        return Choice(module, "named by the caller")
    name = _BY_DEVICE.get(device_type, _OTHERWISE)
    module = _load(name)
    problem = module.unsupported(device_type, dtype)
    if problem is not None:
        return Choice(_load(_OTHERWISE), problem)
    if name == _OTHERWISE and device_type == "cuda":
        return Choice(module, "by default; for a module its size decides")
    if name == _OTHERWISE:
        return Choice(module, f"no kernel of this library serves {device_type} tensors yet")
    return Choice(module, f"the fused kernels serve {checks.dtype_name(dtype)} on {device_type}")


@cache
def _triton_for(dtype: torch.dtype) -> tuple[ModuleType | None, str]:
    """The Triton backend where it can run this dtype here, else the reason why not."""
    try:
        ours = _load("triton")
    except NotImplementedError as error:
        return None, str(error)
    problem = ours.unsupported("cuda", dtype)
    if problem is not None:
        return None, f"the Triton kernels cannot run this: {problem}"
    return ours, ""


def choose_for_cuda(x: Tensor, hidden_features: int, out_features: int) -> Choice:
    """The backend for a network on a CUDA device: the Triton kernels where they measured faster."""
    ours, reason = _triton_for(x.dtype)
    if ours is not None:
        batch, in_features = x.shape[:-1].numel(), x.shape[-1]
        faster, reason = ours.verdict(x, batch, in_features, hidden_features, out_features)
        if faster:
            return Choice(ours, reason)
    return Choice(_load(_OTHERWISE), reason)


def backend_for(device_type: str, dtype: torch.dtype, backend: str | None) -> ModuleType:
    """:func:`choose` without the reason, for any ``backend`` that a caller may pass."""
    if backend is not None and backend not in checks.BACKENDS:
        checks.check_backend(backend)  # before the cache, which an unhashable one would break
    return choose(device_type, dtype, backend)[0]


def backend_for_sizes(
    x: Tensor, hidden_features: int, out_features: int, backend: str | None
) -> ModuleType:
    """The backend for a network of these widths on ``x``."""
    chosen = backend_for(x.device.type, x.dtype, backend)
    if backend is None and x.is_cuda:
        chosen = choose_for_cuda(x, hidden_features, out_features).backend
    return chosen


def _widths(site: Any) -> tuple[int, int] | None:
    """Hidden and output features of a fused module of two layers."""
    if hasattr(site, "_chain"):
        return site.out_features, site._chain.linear2.out_features
    if hasattr(site, "linear2"):
        return site.hidden_features, site.out_features
    return None


def explain(model_or_op: Any, x: Tensor) -> str:
    """Which backend runs ``model_or_op`` on ``x``, and why: a line for each fused layer in it.

    Args:
        model_or_op: a module that is or contains ``FusedTwoLayer`` or ``FusedLinearReLU``, or
            one of the functions of :mod:`twolayer_kernels.functional`.
        x: the input, for its device, dtype and shape.

    Raises:
        TypeError: ``model_or_op`` is neither, or ``x`` is no tensor.

    Example:
        >>> import torch
        >>> from twolayer_kernels import FusedTwoLayer, explain
        >>> explain(FusedTwoLayer(3, 5, 2, backend="torch"), torch.randn(7, 3))
        'FusedTwoLayer: torch (named by the caller)'
    """
    from . import (
        functional,
        fusing,
        modules,
    )  # explain speaks of the rooms above; nothing here runs them

    if not isinstance(x, Tensor):
        raise TypeError(f"explain: x must be a torch.Tensor, got {type(x).__name__}")
    fused = (modules.FusedTwoLayer, modules.FusedLinearReLU, fusing.FusedFirst)
    if model_or_op in (functional.two_layer, functional.linear_relu):
        sites: list[tuple[str, Any]] = [(model_or_op.__name__, None)]
    elif isinstance(model_or_op, torch.nn.Module):
        sites = [
            (name or type(module).__name__, module)
            for name, module in model_or_op.named_modules()
            if isinstance(module, fused)
        ]
    else:
        raise TypeError(
            "explain: model_or_op must be a torch.nn.Module or a function of"
            f" twolayer_kernels.functional, got {type(model_or_op).__name__}"
        )
    if not sites:
        return "no fused layer in this model: every layer runs as it is written"
    lines = []
    for name, site in sites:
        choice = choose(x.device.type, x.dtype, None if site is None else site.backend)
        widths = _widths(site)
        if widths is not None and site.backend is None and x.device.type == "cuda":
            choice = choose_for_cuda(x, *widths)
        kernel = choice.backend.__name__.rpartition(".")[2]
        detail = getattr(choice.backend, "describe", lambda: "")()
        lines.append(f"{name}: {kernel}{detail} ({choice.reason})")
    return "\n".join(lines)
