"""How steps are timed: the sides take turns in blocks, and each block's start is dropped.

Single calls that alternate disturb each other: the thread pool of the library
that has just run still spins while the other one starts. A block of steps
settles within its first fifth, which does not count. Of steps that are taken in one call, only the
mean of that call can be known; it counts with all that the call does besides.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

BLOCK_STEPS = 100


class Stopwatch:
    """The durations of one side's steps, gathered block by block, in seconds."""

    def __init__(self) -> None:
        self._settled: list[float] = []

    def add_block(self, durations: list[float]) -> None:
        dropped = -(-len(durations) // 5) if len(durations) > 1 else 0
        self._settled += durations[dropped:]

    def add_run(self, seconds: float, steps: int) -> None:
        """A call that took so many steps: one duration, the mean."""
        self._settled.append(seconds / steps)

    def median(self) -> float:
        """The median step, or of runs the median mean; not a number before the first block."""
        return median(self._settled) if self._settled else float("nan")


def blocks(steps: int, length: int = BLOCK_STEPS) -> Iterator[int]:
    """The sizes of the blocks that ``steps`` steps are run in."""
    while steps > 0:
        yield min(steps, length)
        steps -= length
