"""The time that a run has."""

from __future__ import annotations

import time
from collections.abc import Callable

RESERVE_SECONDS = 15.0  # for Python's start, the table and the picture


class Budget:
    """Seconds left of a number of seconds, by any clock."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._end = self._start + seconds - RESERVE_SECONDS

    def used(self) -> float:
        return self._clock() - self._start

    def left(self) -> float:
        return self._end - self._clock()

    def at_most(self, seconds: float, keep: float = 0.0) -> float:
        """``seconds``, or what is left of them when ``keep`` seconds stay for what comes after."""
        return max(0.0, min(seconds, self.left() - keep))
