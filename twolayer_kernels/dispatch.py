"""Which backend runs a call, and why: the rule by device, dtype and size, and explicit choices."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import NamedTuple

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


# What to do where a backend cannot be loaded.
_REMEDIES = {
    "triton": "; pip install 'twolayer_kernels[triton]'",
    "cpu": "; installing the package builds the extension, in a clone pip install -e .",
}


@cache
def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(f".backends.{name}", __package__)
    except ImportError as error:
        remedy = _REMEDIES.get(name, "")
        raise NotImplementedError(f"backend={name!r} is not available: {error}{remedy}") from error


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


def choose_for_cuda(x: Tensor, in_features: int, hidden_features: int, out_features: int) -> Choice:
    """The backend for a network on a CUDA device: the Triton kernels where they measured faster."""
    ours, reason = _triton_for(x.dtype)
    if ours is not None:
        batch = x.shape[:-1].numel()
        faster, reason = ours.verdict(x, batch, in_features, hidden_features, out_features)
        if faster:
            return Choice(ours, reason)
    return Choice(_load(_OTHERWISE), reason)


def is_torchs_own(backend: ModuleType) -> bool:
    """Whether torch's kernels run: then plain operations with torch's autograd are the fastest."""
    return backend is _load(_OTHERWISE)


def is_certainly_torchs_own(
    device_type: str, index: int | None, dtype: torch.dtype, backend: str | None
) -> bool:
    """Whether torch's kernels run a network of any size: then a compiler may look into the call.

    Where measurements decide by size, an operator asks them when it runs: a compiled graph may
    serve many batches.
    """
    if backend is not None:
        return backend == _OTHERWISE
    if device_type == "cuda":
        ours, _ = _triton_for(dtype)
        return ours is None or not ours.may_be_faster(index or 0, dtype)
    return is_torchs_own(choose(device_type, dtype, None).backend)


# torch.compiler.assume_constant_result sets this, and loads the compiler and triton to do so.
is_certainly_torchs_own._dynamo_marked_constant = True  # type: ignore[attr-defined]


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
        chosen = choose_for_cuda(x, x.shape[-1], hidden_features, out_features).backend
    return chosen
