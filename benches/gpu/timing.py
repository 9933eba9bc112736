"""How GPU work is timed: blocks of calls between two events, the peers in turn, caches flushed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles
from typing import Any

import torch

Timer = Callable[[Callable[[], object], int], float]

ROUNDS, FEWEST_ROUNDS = 21, 7
TURNS_SECONDS = 2.0  # for all rounds of a row, unless the fewest take longer
BLOCK_SECONDS = 2e-3
MOST_CALLS = 200


class Events:
    """Seconds a call, of ``count`` calls one after the other as training steps are.

    Before a block the L2 cache is filled with other data; within it a call finds what the one
    before it left there.
    """

    def __init__(self) -> None:
        size = 4 * torch.cuda.get_device_properties().L2_cache_size
        self._other_data = torch.empty(max(size, 1 << 26), dtype=torch.int8, device="cuda")
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def __call__(self, call: Callable[[], object], count: int) -> float:
        torch.cuda.synchronize()
        self._other_data.zero_()
        self._start.record()
        for _ in range(count):
            call()
        self._end.record()
        torch.cuda.synchronize()
        return self._start.elapsed_time(self._end) / 1e3 / count


def summary(seconds: list[float], calls: int) -> dict[str, Any]:
    low, _, high = quantiles(seconds, n=4)
    return {
        "median": median(seconds),
        "low": low,  # quartiles
        "high": high,
        "rounds": len(seconds),
        "calls": calls,
    }


def time_in_turn(
    calls: Mapping[str, Callable[[], object]], timer: Timer, rounds: int = ROUNDS
) -> dict[str, dict[str, Any]]:
    """Times all peers, a block of each in every round; each round begins with another peer.

    Long calls need fewer rounds: their times spread less.
    """
    counts: dict[str, int] = {}
    blocks: dict[str, list[float]] = {name: [] for name in calls}
    a_round = 0.0
    for name, call in calls.items():
        timer(call, 3)
        once = timer(call, 3)
        counts[name] = max(1, min(MOST_CALLS, round(BLOCK_SECONDS / once)))
        a_round += counts[name] * once
    names = list(calls)
    if names:
        rounds = min(rounds, max(FEWEST_ROUNDS, int(TURNS_SECONDS / a_round)))
    for turn in range(rounds if names else 0):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            blocks[name].append(timer(calls[name], counts[name]))
    return {name: summary(blocks[name], counts[name]) for name in names}


def host_seconds(call: Callable[[], object], repeats: int = 11, count: int = 20) -> float:
    """Seconds until a call returns, with the GPU's queue empty at first and never full."""
    seconds = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            call()
        seconds.append((time.perf_counter() - start) / count)
    torch.cuda.synchronize()
    return median(seconds)


def peak_bytes(call: Callable[[], object]) -> int:
    """What one step adds to the memory in use, at its peak."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def held_bytes(forward: Callable[[], object]) -> int:
    """What a forward leaves in memory for its backward, its result included."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    y = forward()
    held = torch.cuda.memory_allocated() - before
    del y
    return held
