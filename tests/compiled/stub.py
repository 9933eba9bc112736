"""A driver for a GPU that is not there: kernels are compiled for it and launched into a list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import max_shared_mem

from twolayer_kernels.backends.triton import launch, narrow, product, two_layers

# Bytes of shared memory that one program may have, and multiprocessors: A100, H100, B200, B300.
SHARED_LIMITS = {80: 166912, 90: 232448, 100: 232448, 103: 232448}
MULTIPROCESSORS = {80: 108, 90: 132, 100: 148, 103: 148}
# Programs along the second and third dimension of a grid.
MOST_PROGRAMS = 65535

KERNELS = (
    product.product_kernel,
    product.sum_parts_kernel,
    product.column_sums_kernel,
    product.masked_kernel,
    narrow.narrow_forward_kernel,
    narrow.narrow_backward_kernel,
)


class Launched(NamedTuple):
    """One launch as the driver was told of it."""

    name: str
    grid: tuple[int, int, int]
    stream: int
    function: Any
    packed_metadata: Any
    arguments: tuple[Any, ...]


class _Utilities:
    """The part of a driver that knows the device and loads code to it."""

    def __init__(self, arch: int, multiprocessors: int) -> None:
        self._arch, self._multiprocessors = arch, multiprocessors

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": SHARED_LIMITS[self._arch],
            "multiprocessor_count": self._multiprocessors,
        }

    def load_binary(
        self, name: str, code: bytes, shared: int, device: int
    ) -> tuple[None, str, int, int, int]:
        # No module, so there is nothing to unload; registers, spills, threads.
        return None, f"function {name}", 0, 0, 1024


class StubDriver:
    """What ``kernel[grid](...)`` and our own launcher ask of a driver."""

    def __init__(self, arch: int, multiprocessors: int) -> None:
        self.arch = arch
        self.utils = _Utilities(arch, multiprocessors)
        self.launches: list[Launched] = []

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """The launcher of one compiled kernel; it takes what Triton's own takes."""

        def start(x, y, z, stream, function, packed, launch_metadata, enter, leave, *arguments):
            assert x < 2**31, f"{metadata.name}: {x} programs"
            assert max(y, z) <= MOST_PROGRAMS, f"{metadata.name}: a grid of {(x, y, z)}"
            launched = Launched(metadata.name, (x, y, z), stream, function, packed, arguments)
            self.launches.append(launched)

        return start


def _forget() -> None:
    """Drops what was compiled, and what is known of the device, for another architecture."""
    max_shared_mem.cache_clear()
    launch.device_at.cache_clear()
    launch._compiled.clear()
    two_layers.forget_prepared()
    for kernel in KERNELS:
        kernel.device_caches.clear()


def compiled() -> list[Any]:
    """What was compiled since the device was set."""
    caches = (cache for kernel in KERNELS for cache in kernel.device_caches.values())
    return [kernel for kernels, *_ in caches for kernel in kernels.values()]


@contextmanager
def device(arch: int, multiprocessors: int | None = None) -> Iterator[StubDriver]:
    """Everything launched inside is compiled for compute capability ``arch``, and nothing runs.

    A GPU that the machine has is not asked.
    """
    count = multiprocessors or MULTIPROCESSORS[arch]
    driver, known = StubDriver(arch, count), launch.Device("no device", arch, count)
    _forget()
    triton.runtime.driver.set_active(driver)
    try:
        with mock.patch.object(launch, "device_at", return_value=known):
            yield driver
    finally:
        triton.runtime.driver.set_active(None)  # the machine's own, when it is asked for
        _forget()
