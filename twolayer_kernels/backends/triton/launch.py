"""Launching a compiled kernel at little cost, and what is known of the device.

``kernel[grid](...)`` of Triton looks at every argument in Python at every call. Here the compiled
kernel is found by a key of what the compiler specializes on, and started directly. That is private
to Triton: a version that has not been tried goes through ``kernel[grid](...)``.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.runtime import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from .product import product_kernel

# With TRITON_INTERPRET=1 kernels run in Python, on tensors of any device.
INTERPRETED = not isinstance(product_kernel, JITFunction)


class Device(NamedTuple):
    """What the choice of tiles asks of a device."""

    name: str
    arch: int  # compute capability: 80, 90, 100, ...
    multiprocessors: int


@lru_cache(maxsize=64)
def device_at(index: int) -> Device:
    if INTERPRETED:
        return Device("interpreter", 90, 3)
    driver = triton.runtime.driver.active
    count = driver.utils.get_device_properties(index)["multiprocessor_count"]
    if not torch.cuda.is_available():  # a stand-in for a device
        return Device("no device", driver.get_current_target().arch, count)
    major, minor = torch.cuda.get_device_capability(index)
    return Device(torch.cuda.get_device_name(index), 10 * major + minor, count)


def device_of(t: Tensor) -> Device:
    return device_at(t.device.index or 0)


class Launch(NamedTuple):
    """How a kernel is compiled beside its constants."""

    warps: int
    stages: int


_compiled: dict[Any, Any] = {}


# The versions whose way of starting a compiled kernel, which is private, is known to be this one.
_KNOWN = ("3.6.",)
_starts_directly = triton.__version__.startswith(_KNOWN)


@cache
def _unspecialized(kernel: Any) -> tuple[bool, ...]:
    """Which parameters the kernel has told the compiler not to look at."""
    return tuple(parameter.do_not_specialize for parameter in kernel.params)


def _specialization(argument: Any, unspecialized: bool) -> Any:
    """What of an argument the compiler looks at."""
    if unspecialized:
        return argument >= 2**31
    if isinstance(argument, Tensor):
        return argument.dtype, argument.data_ptr() % 16
    if isinstance(argument, int):
        return argument == 1, argument % 16 == 0, argument >= 2**31
    if isinstance(argument, TensorDescriptor):
        return argument.base.dtype, tuple(argument.block_shape)
    return argument


def _somebody_listens() -> bool:
    """Whether a profiler wants to be told of launches: a chain of hooks, which may be empty."""
    hook = triton.knobs.runtime.launch_enter_hook
    return hook is not None and bool(getattr(hook, "calls", True))


def _options(how: Launch) -> dict[str, Any]:
    """What the compiler is told; a product and its sum are one instruction, rounded once."""
    return {"num_warps": how.warps, "num_stages": how.stages, "enable_fp_fusion": True}


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: tuple[Any, ...],
    constants: tuple[Any, ...],
    how: Launch,
) -> Any:
    """Starts ``kernel`` on the current stream of the current device; what was compiled for it.

    ``arguments`` and then ``constants`` are the kernel's parameters in their order. ``None`` is
    returned where the kernel was not started directly.
    """
    if INTERPRETED:
        kernel[grid](*arguments, *constants)
        return None
    if not _starts_directly:
        kernel[grid](*arguments, *constants, **_options(how))
        return None
    driver = triton.runtime.driver.active
    device = driver.get_current_device()
    looked_at = map(_specialization, arguments, _unspecialized(kernel))
    key = (kernel, device, how, constants, *looked_at)
    compiled = _compiled.get(key)
    if compiled is None or _somebody_listens():
        compiled = _compiled[key] = kernel[grid](*arguments, *constants, **_options(how))
    else:
        _start(compiled, grid, driver.get_current_stream(device), (*arguments, *constants))
    return compiled


def _start(compiled: Any, grid: tuple[int, ...], stream: int, arguments: tuple[Any, ...]) -> None:
    x, y, z = (*grid, 1, 1)[:3]
    compiled.run(
        x, y, z, stream, compiled.function, compiled.packed_metadata, None, None, None, *arguments
    )


class Prepared:
    """A launch with all of its arguments but the tensors, which are the kernel's first parameters.

    The dtypes of the tensors, and which of them are ``None``, must be the same at every launch:
    then their alignment is all that can ask for another compiled kernel.
    """

    __slots__ = ("_compiled", "constants", "grid", "how", "kernel", "numbers")

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        numbers: tuple[int, ...],
        constants: tuple[Any, ...],
        how: Launch,
    ) -> None:
        self.kernel, self.grid, self.numbers = kernel, grid, numbers
        self.constants, self.how = constants, how
        self._compiled: dict[Any, Any] = {}

    def start(self, *tensors: Tensor | None) -> None:
        """Starts the kernel on the current stream of the current device."""
        compiled = key = None
        if _starts_directly and not INTERPRETED:
            driver = triton.runtime.driver.active
            device = driver.get_current_device()
            key = (device, *[0 if t is None else t.data_ptr() % 16 for t in tensors])
            compiled = self._compiled.get(key)
        if compiled is None or _somebody_listens():
            arguments = (*tensors, *self.numbers)
            self._compiled[key] = launch(
                self.kernel, self.grid, arguments, self.constants, self.how
            )
        else:
            stream = driver.get_current_stream(device)
            _start(compiled, self.grid, stream, (*tensors, *self.numbers, *self.constants))
