"""Running a rung: the loss curves, how far they lie apart, the budgets, and the timings.

``docs/ladder.md`` derives the measure and every number here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..timing import Stopwatch, blocks
from .by_hand import Fit, Step
from .problem import Array, Problem
from .rungs import Rung

# So early, rounding has hardly grown yet.
START_STEPS = 10
# A loss below this share of the first one counts as that share: what is left is rounding.
FLOOR = 1e-4


class Budget(NamedTuple):
    """Largest relative distances of right curves: over the first steps, and over all."""

    start: float
    whole: float


BUDGETS = {
    torch.float32: Budget(start=1e-3, whole=0.1),
    torch.float64: Budget(start=1e-13, whole=1e-11),
}
# A chaotic curve in float32: two plain runs that differ by rounding were seen 0.86 apart.
CHAOTIC_BUDGETS = {
    torch.float32: Budget(start=1e-3, whole=float("inf")),
    torch.float64: BUDGETS[torch.float64],
}


def budget_for(rung: Rung, dtype: torch.dtype) -> Budget:
    return (CHAOTIC_BUDGETS if rung.chaotic else BUDGETS)[dtype]


def distance(one: Array, other: Array) -> float:
    """``max_t |l_t - m_t| / max(l_t, m_t, FLOOR * l_0)``; infinite where a loss is no number."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    scale = np.maximum(np.maximum(one, other), FLOOR * one[0])
    apart = np.abs(one - other)
    return float(np.divide(apart, scale, out=np.zeros_like(apart), where=apart > 0).max())


class Side(NamedTuple):
    """One way to train a rung: the loss of each step, and the median seconds of a step."""

    name: str
    losses: Array
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """A rung's plain side, and beside it the fused one and, where there is one, that of ``fit``."""

    rung: Rung
    plain: Side
    fused: Side
    fit: Side | None
    budget: Budget
    fault: str | None

    def start_distance(self, twin: Side) -> float:
        return distance(self.plain.losses[:START_STEPS], twin.losses[:START_STEPS])

    def whole_distance(self, twin: Side) -> float:
        return distance(self.plain.losses, twin.losses)

    def problem_of(self, twin: Side) -> str | None:
        """Why this twin is out of budget, or ``None``."""
        for found, allowed, where in (
            (self.start_distance(twin), self.budget.start, f"the first {START_STEPS} steps"),
            (self.whole_distance(twin), self.budget.whole, "all steps"),
        ):
            # An infinite distance is a loss that is no number: no budget allows it.
            if not (found <= allowed and np.isfinite(found)):
                return (
                    f"loss curves of plain and {twin.name} {found:.1e} apart over {where},"
                    f" the budget is {allowed:g}"
                )
        return None

    @property
    def problem(self) -> str | None:
        """What is wrong with this rung, or ``None``."""
        twins = (self.fused,) if self.fit is None else (self.fused, self.fit)
        problems = (self.fault, *map(self.problem_of, twins))
        return next((problem for problem in problems if problem is not None), None)


def _run_block(step: Step, steps: int, losses: list[float], stopwatch: Stopwatch) -> None:
    durations = []
    for _ in range(steps):
        start = time.perf_counter()
        losses.append(step())
        durations.append(time.perf_counter() - start)
    stopwatch.add_block(durations)


def _run_fit(fit: Fit, steps: int, losses: list[float], stopwatch: Stopwatch) -> None:
    start = time.perf_counter()
    found = fit(steps)
    stopwatch.add_run(time.perf_counter() - start, steps)
    losses += found.tolist()


def run(rung: Rung, problem: Problem, steps: int) -> Outcome:
    """The sides of a rung, taking turns in blocks of steps; a block of ``fit`` is one call."""
    plain, fused, fit = rung.plain(problem), rung.fused(problem), rung.fit(problem)
    losses: dict[str, list[float]] = {"plain": [], "fused": [], "fit": []}
    watches = {name: Stopwatch() for name in losses}
    for size in blocks(steps):
        _run_block(plain, size, losses["plain"], watches["plain"])
        _run_block(fused, size, losses["fused"], watches["fused"])
        if fit is not None:
            _run_fit(fit, size, losses["fit"], watches["fit"])
    plain_side, fused_side, fit_side = (
        Side(name, np.array(losses[name]), watches[name].median()) for name in losses
    )
    return Outcome(
        rung,
        plain_side,
        fused_side,
        None if fit is None else fit_side,
        budget_for(rung, problem.dtype),
        rung.check(problem),
    )
