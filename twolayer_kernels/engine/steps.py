"""Runs of the compiled loop, in slices of time, and the loss that ends them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _cpu
from .batches import Chunk, Samples

Training = _cpu.Training
Mover = dict[str, Any]
Reals = NDArray[np.float64]
Told = Callable[[int, float], None]

# The compiled loop returns after this time, so that Python can look for signals.
SLICE_SECONDS = 0.05


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
        self._loss = loss

    def __reduce__(self) -> Any:  # by its arguments, which are not its message
        return type(self), (self.step, self._loss), self.__dict__


def tell_losses(error: BaseException, losses: Any) -> None:
    """Puts the losses so far on what ended the run; some errors take no attributes."""
    with suppress(AttributeError, TypeError):
        error.losses = losses  # type: ignore[attr-defined]


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


def _unheard(done: int, loss: float) -> None: ...


def run_chunk(
    training: Training,
    samples: Samples,
    chunk: Chunk,
    rates: Reals | None,
    losses: Reals,
    stop_at_nonfinite: bool,
    told: Told = _unheard,
) -> None:
    """Takes the chunk's steps, in slices of time; ``training.taken`` counts them at any time.

    Args:
        rates: learning rate and momentum of each step and parameter, ``(steps, 4, 2)``.
        losses: of the chunk's steps, to be written.
        told: hears after each slice how many steps are done, and the last one's loss.

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
        if taken:
            told(done, float(losses[done - 1]))
        if nonfinite:
            raise NonFiniteLoss(chunk.begin + done, float(losses[done]))
