"""Zeros that the programs of a launch count their arrivals in: slices of one cleared slab a device.

Each kernel leaves zeros behind (:mod:`.arriving`), so one slice serves all launches of a stream,
one after another.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import torch
from torch import Tensor

# More than any launch needs: where programs share a sum there are few of them.
_OF_A_STREAM = 4096
# 4 MiB: some 100 streams, and thousands of launches in graphs.
_SLAB = 1 << 20
# Slices begin at multiples of 16 bytes: elsewhere a kernel would be compiled again, in a capture.
_ALIGNED = 4


class _Slab:
    """Zeros that are given away once each."""

    def __init__(self, zeros: Tensor) -> None:
        self._zeros, self._given, self._lock = zeros, 0, Lock()

    def take(self, count: int) -> Tensor | None:
        with self._lock:
            first = self._given
            if first + count > self._zeros.numel():
                return None
            self._given += -(-count // _ALIGNED) * _ALIGNED
        return self._zeros[first : first + count]


_slabs: dict[torch.device, _Slab] = {}
# Keyed by device and stream: two streams may run at once.
_of_streams: dict[tuple[torch.device, int], Tensor] = {}


def _kept_zeros(device: torch.device, count: int) -> Tensor:
    """Zeros that outlive whatever the calling thread is recording.

    While a compiler warms a CUDA graph up, all that its thread allocates belongs to the graph; so
    another thread allocates.
    """

    def make() -> Tensor:
        zeros = torch.zeros(count, dtype=torch.int32, device=device)
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
        return zeros

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(make).result()


def _is_captured(device: torch.device) -> bool:
    """Whether the launch goes into a CUDA graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _for_a_graph(device: torch.device, count: int) -> Tensor:
    """Counters of this launch's own: its graph may be replayed beside other launches, or never.

    A slice is never given twice, since nobody says when a graph is gone. Memory must not be
    asked for during a capture, so without a slab, or at its end, the graph itself clears some at
    each replay: one more kernel.
    """
    slab = _slabs.get(device)
    taken = None if slab is None else slab.take(count)
    return torch.zeros(count, dtype=torch.int32, device=device) if taken is None else taken


def counters(device: torch.device, count: int) -> Tensor:
    """At least ``count`` zeros for one launch on the current stream of ``device``."""
    if _is_captured(device):
        return _for_a_graph(device, count)
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    kept = _of_streams.get((device, stream))
    if kept is None or kept.numel() < count:
        wanted = max(count, _OF_A_STREAM)
        slab = _slabs.get(device)
        if slab is None:
            slab = _slabs.setdefault(device, _Slab(_kept_zeros(device, _SLAB)))
        taken = slab.take(wanted)
        kept = _kept_zeros(device, wanted) if taken is None else taken
        _of_streams[device, stream] = kept
    return kept


def forget() -> None:
    """After a launch that left something else than zeros."""
    _of_streams.clear()
    _slabs.clear()
