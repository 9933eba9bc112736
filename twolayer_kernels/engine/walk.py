"""The walk over the steps of one training, in chunks between which others have their say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from .batches import Batches, Chunk, Samples
from .steps import Reals, Told
from .undisturbed import undisturbed


class Run(Protocol):
    """A network with its optimizer, as a walk sees it."""

    @property
    def taken(self) -> int:
        """The steps taken so far."""

    def losses(self) -> Any:
        """Of these steps: an array or tensor."""

    def constant_rates(self, count: int) -> Reals:
        """The present learning rates and momenta, for so many steps: ``(count, 4, 2)``."""

    def read(self) -> None:
        """Takes over what others have changed in the network and its optimizer since."""

    def take(self, samples: Samples, chunk: Chunk, rates: Reals | None, told: Told) -> None:
        """Takes the chunk's steps; ``told`` hears how many are done, and the last one's loss."""

    def write_back(self) -> None:
        """Leaves parameters and states to others as they are after the steps taken."""

    def note(self) -> None:
        """Others have their say now, and more steps follow: what they find is noted."""


class Schedule:
    """How learning rates change: not at all, and what others make of it."""

    longest: int | None = None  # chunk of steps
    by_epoch = False
    failure: Exception | None = None  # after the steps whose rates there are

    def rates(self, begin: int, count: int) -> Reals | None:
        """For the steps ``begin .. begin + count``; ``None``: as the optimizer's groups say.

        Of fewer steps where ``failure`` comes after these.
        """
        return None

    def taken(self, steps: int) -> None:
        """So many of those steps were taken."""

    def epoch_ends(self, mean_loss: float) -> None: ...


class ByFunction(Schedule):
    """The learning rate as a function of the step, for all groups."""

    def __init__(
        self, constant_rates: Callable[[int], Reals], function: Callable[[int], float]
    ) -> None:
        self._constant_rates, self._function = constant_rates, function

    def rates(self, begin: int, count: int) -> Reals:
        found: list[float] = []
        try:
            for step in range(begin, begin + count):
                found.append(float(self._function(step)))
        except Exception as error:
            self.failure = error
        rates = self._constant_rates(len(found))
        rates[:, :, 0] = np.array(found)[:, None]
        return rates


class Source:
    """Where the samples of each step come from."""

    per_epoch: int

    def chunks(self, begin: int, end: int) -> Iterator[tuple[Samples, Chunk]]:
        raise NotImplementedError

    def give_back(self, steps: int) -> None: ...


class Held(Source):
    """Samples that are all there."""

    def __init__(self, samples: Samples, batches: Batches) -> None:
        self._samples, self._batches = samples, batches
        self.per_epoch = batches.per_epoch

    def chunks(self, begin: int, end: int) -> Iterator[tuple[Samples, Chunk]]:
        while begin < end:
            chunk = self._batches.chunk(begin, end)
            yield self._samples, chunk
            begin += len(chunk.first)

    def give_back(self, steps: int) -> None:
        self._batches.give_back(steps)


class Walk:
    """The steps of one ``fit``, in chunks between which others have their say.

    Args:
        callback: called every ``every`` steps and at the end with the steps done and their losses;
            a true result ends the walk.
        told: hears of progress: the steps done and the last one's loss.
    """

    def __init__(
        self,
        run: Run,
        plan: Schedule,
        source: Source,
        steps: int,
        callback: Callable[[int, Any], Any] | None,
        every: int,
        told: Told = lambda done, loss: None,
    ) -> None:
        self._run, self._plan, self._source, self._steps = run, plan, source, steps
        self._callback, self._every, self._told = callback, every, told
        self._unsettled = False
        self._asked: int | None = None  # the steps taken when rates were asked for
        self._in_whole_epochs = 0  # the steps after which the schedule has heard of an epoch's end

    def _next_stop(self, begin: int) -> int:
        """The step before which somebody else comes next."""
        stops = [self._steps]
        if self._callback is not None:
            stops.append((begin // self._every + 1) * self._every)
        if self._plan.by_epoch:
            per_epoch = self._source.per_epoch
            stops.append((begin // per_epoch + 1) * per_epoch)
        if self._plan.longest is not None:
            stops.append(begin + self._plan.longest)
        return min(stops)

    def go(self) -> None:
        try:
            self._go()
        except BaseException:
            self._settle()  # where Ctrl-C came in between
            raise

    def _go(self) -> None:
        done = 0
        while done < self._steps:
            end = self._next_stop(done)
            self._run.read()
            self._unsettled = True
            try:
                for samples, chunk in self._source.chunks(done, end):
                    self._take(samples, chunk)
            finally:
                self._settle()
            done = self._run.taken
            calls = done % self._every == 0 or done == self._steps
            if self._callback is not None and calls and self._callback(done, self._run.losses()):
                break

    def _settle(self) -> None:
        """Leaves network, optimizer, schedule and source as after the steps taken."""
        with undisturbed():
            self._tell_plan()
            if not self._unsettled:
                return
            self._run.write_back()
            self._source.give_back(self._run.taken)
            self._unsettled = False
            if self._run.taken < self._steps:
                self._run.note()
            self._end_epoch()

    def _end_epoch(self) -> None:
        """Tells the schedule where the steps taken end an epoch."""
        taken, per_epoch = self._run.taken, self._source.per_epoch
        if self._plan.by_epoch and taken > self._in_whole_epochs and taken % per_epoch == 0:
            self._in_whole_epochs = taken
            self._plan.epoch_ends(float(self._run.losses()[-per_epoch:].mean()))

    def _tell_plan(self) -> None:
        """Said once more where Ctrl-C came in between: it comes to the same."""
        if self._asked is not None:
            self._plan.taken(self._run.taken - self._asked)
        self._asked = None

    def _take(self, samples: Samples, chunk: Chunk) -> None:
        begin, count = self._run.taken, len(chunk.first)
        self._asked = begin
        rates = self._plan.rates(begin, count)
        if rates is None and self._callback is not None:  # which may have changed them
            rates = self._run.constant_rates(count)
        if rates is not None:
            chunk = chunk.until(len(rates))
        if len(chunk.first):
            self._run.take(samples, chunk, rates, lambda done, loss: self._told(begin + done, loss))
        self._tell_plan()
        if self._plan.failure is not None:
            raise self._plan.failure
