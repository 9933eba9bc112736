"""The time that a run has, and a limit for what cannot be foreseen."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

RESERVE_SECONDS = 10.0  # for the table and the picture


class Budget:
    """Seconds left of a number of minutes, by any clock."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._end = self._start + 60 * minutes - RESERVE_SECONDS

    def used(self) -> float:
        return self._clock() - self._start

    def left(self) -> float:
        return self._end - self._clock()

    def fits(self, seconds: float) -> bool:
        return seconds <= self.left()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises ``TimeoutError`` in what takes longer; POSIX, main thread."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not ready within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
