"""The samples of each step: epochs of batches, each epoch in an order of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

# Sample numbers that are drawn ahead of the steps that take them.
_NUMBERS_AHEAD = 1 << 20


class Samples(NamedTuple):
    """What batches are taken from: ``target`` or ``classes`` (int64) stand beside ``x``."""

    x: Any
    target: Any
    classes: Numbers | None
    weight: Any


@dataclass
class Draw:
    """A source of permutations that can be put back to where it was."""

    permutation: Callable[[int], Numbers]
    state: Callable[[], Any]
    restore: Callable[[Any], None]


class Chunk(NamedTuple):
    """Steps ``begin .. begin + len(first)``; see ``csrc/training/training.h`` for the numbers."""

    begin: int
    order: Numbers | None
    first: Numbers
    size: Numbers

    def until(self, count: int) -> Chunk:
        """The first steps of it."""
        return self._replace(first=self.first[:count], size=self.size[:count])


class Batches:
    """The samples of each step: epochs of batches, each epoch in an order of its own.

    Args:
        samples: how many there are.
        batch_size: of a step; the last of an epoch may be smaller. ``None``: all samples, and
            nothing is drawn.
        draw: where the orders come from; ``None`` leaves the samples in theirs.
    """

    def __init__(self, samples: int, batch_size: int | None, draw: Draw | None) -> None:
        self.samples = samples
        self.batch_size = samples if batch_size is None else min(batch_size, samples)
        self.per_epoch = max(1, -(-samples // max(1, self.batch_size)))
        self._draw = None if batch_size is None else draw
        self._order = np.empty(0, np.int64)
        self._first_epoch = self._next_epoch = 0  # those whose orders are kept
        self._state: Any = None  # of the source before the newest of them,
        self._drawn_from = 0  # which begin with this epoch

    def chunk(self, begin: int, end: int) -> Chunk:
        """Some steps from ``begin`` on, at most up to ``end``."""
        epoch = begin // self.per_epoch
        ahead = max(1, _NUMBERS_AHEAD // max(1, self.samples))
        end = min(end, (epoch + ahead) * self.per_epoch)
        steps = np.arange(begin, end)
        epochs, places = np.divmod(steps, self.per_epoch)
        first = places * self.batch_size
        size = np.minimum(self.batch_size, self.samples - first)
        if self._draw is None:
            return Chunk(begin, None, first, size)
        self._provide(epoch, (end - 1) // self.per_epoch + 1)
        return Chunk(begin, self._order, first + (epochs - epoch) * self.samples, size)

    def _provide(self, epoch: int, end: int) -> None:
        """Keeps the orders of these epochs, drawing those that are new."""
        assert self._draw is not None
        kept = self._order[(epoch - self._first_epoch) * self.samples :]
        # Noted before anything is drawn: wherever Ctrl-C comes, the source can be put back.
        begin, self._drawn_from = self._next_epoch, self._next_epoch
        self._state = self._draw.state()
        self._next_epoch = max(end, begin)
        new = [self._draw.permutation(self.samples) for _ in range(begin, end)]
        self._order = np.concatenate([kept, *new]) if new else kept
        self._first_epoch = epoch

    def give_back(self, steps: int) -> None:
        """Leaves the source as a loop would that had ended after so many steps."""
        if self._draw is None or self._state is None:
            return
        begun = -(-steps // self.per_epoch)
        if begun < self._next_epoch:
            self._draw.restore(self._state)
            for _ in range(self._drawn_from, begun):
                self._draw.permutation(self.samples)
            self._next_epoch = begun
            self._order = self._order[: (begun - self._first_epoch) * self.samples]
