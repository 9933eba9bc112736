"""Learning rates that change: schedulers of ``torch.optim`` and functions of the step."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..engine import ByFunction, Reals, Schedule
from .optimizers import Movers

# Steps for which a scheduler is asked ahead; it is put back where fewer are taken.
_AHEAD = 256


class ByStep(Schedule):
    """A scheduler that is stepped after each step."""

    longest = _AHEAD

    def __init__(self, movers: Movers, scheduler: LRScheduler) -> None:
        self._movers, self._scheduler = movers, scheduler
        self._ahead = 0

    def rates(self, begin: int, count: int) -> Reals:
        self._before = copy.deepcopy(self._scheduler.state_dict())
        self._groups = [
            {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
            for group in self._movers.optimizer.param_groups
        ]
        self._ahead = count  # from here on it can be put back

        def advance(step: int) -> bool:
            try:
                self._scheduler.step()
            except Exception as error:
                self.failure = error
            return self.failure is None

        rates = self._movers.rates(count, advance)
        self._ahead = len(rates)
        return rates

    def taken(self, steps: int) -> None:
        ahead, self._ahead = self._ahead, 0
        if steps == ahead:
            return
        self.failure = None  # of a later step
        for group, before in zip(self._movers.optimizer.param_groups, self._groups, strict=True):
            for key, value in before.items():
                if isinstance(value, Tensor):  # which schedulers write into
                    group[key].copy_(value)
                else:
                    group[key] = value
        self._scheduler.load_state_dict(self._before)
        for _ in range(steps):
            self._scheduler.step()


class ByEpoch(Schedule):
    """A scheduler that is stepped after each epoch."""

    by_epoch = True

    def __init__(self, movers: Movers, scheduler: LRScheduler) -> None:
        self._movers, self._scheduler = movers, scheduler

    def rates(self, begin: int, count: int) -> Reals:
        return self._movers.constant_rates(count)

    def epoch_ends(self, mean_loss: float) -> None:
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(mean_loss)
        else:
            self._scheduler.step()


def schedule_of(schedule: Any, per: str, movers: Movers, optimizer: Optimizer | None) -> Schedule:
    """What ``fit``'s ``schedule`` and ``schedule_per`` ask for.

    Args:
        optimizer: the one that the caller gave, if it was one of torch's.

    Raises:
        TypeError, ValueError: it is neither a scheduler nor callable, or of another optimizer.
    """
    if per not in ("step", "epoch"):
        raise ValueError(f"fit: schedule_per must be 'step' or 'epoch', got {per!r}")
    if schedule is None:
        return Schedule()
    if isinstance(schedule, LRScheduler):
        if optimizer is None or schedule.optimizer is not optimizer:
            raise ValueError(
                "fit: schedule must be a scheduler of the optimizer that is given with it"
            )
        if per == "step" and isinstance(schedule, ReduceLROnPlateau):
            raise ValueError("fit: ReduceLROnPlateau needs schedule_per='epoch'")
        optimizer._opt_called = True  # type: ignore[attr-defined]  # else it warns of a wrong order
        return ByStep(movers, schedule) if per == "step" else ByEpoch(movers, schedule)
    if callable(schedule):
        return ByFunction(movers.constant_rates, schedule)
    raise TypeError(
        "fit: schedule must be a torch.optim.lr_scheduler or a function of the step, got"
        f" {type(schedule).__name__}"
    )
