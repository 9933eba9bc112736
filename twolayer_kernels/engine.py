"""Runs of the compiled training loop: which samples each step takes, and what stops a run.

Shared by the front ends for torch, NumPy and scikit-learn; knows arrays, not tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _cpu

Training = _cpu.Training
Mover = dict[str, Any]
Numbers = NDArray[np.int64]
Reals = NDArray[np.float64]

# The compiled loop returns after this time, so that Python can look for signals.
SLICE_SECONDS = 0.05
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
        self._state: Any = None

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
        self._state = self._draw.state()
        self._drawn_from = self._next_epoch
        new = [self._draw.permutation(self.samples) for _ in range(self._next_epoch, end)]
        self._order = np.concatenate([kept, *new]) if new else kept
        self._first_epoch, self._next_epoch = epoch, max(end, self._next_epoch)

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


class NonFiniteLoss(FloatingPointError):
    """The loss of a step is no finite number; the parameters are as they were before that step.

    Attributes:
        step: which step, from 0.
        losses: of the steps up to this one.
    """

    step: int
    losses: Any

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(
            f"the loss of step {step} is {loss}; the parameters are as they were before it. A"
            ' smaller learning rate may help; nan="continue" goes on in spite of it'
        )
        self.step = step


def new_training(
    threads: int,
    parameters: Sequence[Any],
    batch: int,
    optimizer: str,
    movers: list[Mover | None],
    loss: str,
    loss_options: dict[str, Any],
) -> Training:
    """An engine over these parameters, which its runs change in place.

    Args:
        parameters: ``w1, w2, b1, b2``; a weight has a stride of 1, a bias is adjacent or ``None``.
        batch: the most samples of a step.
        movers: for each parameter that moves the optimizer's options, its ``states`` (with the
            parameter's strides, ``None`` where the options need none) and the ``steps`` taken.
    """
    w1, w2, b1, b2 = parameters
    return Training(threads, w1, w2, b1, b2, batch, optimizer, movers, loss, loss_options)


def run_chunk(
    training: Training,
    samples: Samples,
    chunk: Chunk,
    rates: Reals | None,
    losses: Reals,
    stop_at_nonfinite: bool,
) -> Iterator[int]:
    """Takes the chunk's steps; yields, after each slice of time, how many are done.

    Args:
        rates: learning rate and momentum of each step and parameter, ``(steps, 4, 2)``.
        losses: of the chunk's steps, to be written.

    Raises:
        NonFiniteLoss: a step's loss is no finite number.
    """
    count, done = len(chunk.first), 0
    while done < count:
        taken, nonfinite = training.run(
            *samples,
            chunk.order,
            chunk.first[done:],
            chunk.size[done:],
            None if rates is None else rates[done:],
            losses[done:],
            SLICE_SECONDS,
            stop_at_nonfinite,
        )
        done += taken
        yield done
        if nonfinite:
            raise NonFiniteLoss(chunk.begin + done, float(losses[done]))
