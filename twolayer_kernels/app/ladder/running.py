"""Running a rung: both loss curves, how far they lie apart, the budgets, and the timings.

``docs/ladder.md`` derives the measure and every number here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..timing import Stopwatch, blocks
from .by_hand import Step
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


@dataclass(frozen=True)
class Outcome:
    """A rung's two loss curves and the median seconds of a step on each side."""

    rung: Rung
    plain_losses: Array
    fused_losses: Array
    plain_seconds: float
    fused_seconds: float
    budget: Budget
    fault: str | None

    @property
    def start_distance(self) -> float:
        return distance(self.plain_losses[:START_STEPS], self.fused_losses[:START_STEPS])

    @property
    def whole_distance(self) -> float:
        return distance(self.plain_losses, self.fused_losses)

    @property
    def problem(self) -> str | None:
        """Why this rung is out of budget, or ``None``."""
        if self.fault is not None:
            return self.fault
        for found, allowed, where in (
            (self.start_distance, self.budget.start, f"the first {START_STEPS} steps"),
            (self.whole_distance, self.budget.whole, "all steps"),
        ):
            # An infinite distance is a loss that is no number: no budget allows it.
            if not (found <= allowed and np.isfinite(found)):
                return f"loss curves {found:.1e} apart over {where}, the budget is {allowed:g}"
        return None


def _run_block(step: Step, steps: int, losses: list[float], stopwatch: Stopwatch) -> None:
    durations = []
    for _ in range(steps):
        start = time.perf_counter()
        losses.append(step())
        durations.append(time.perf_counter() - start)
    stopwatch.add_block(durations)


def run(rung: Rung, problem: Problem, steps: int) -> Outcome:
    """Both sides of a rung, taking turns in blocks of steps."""
    plain, fused = rung.plain(problem), rung.fused(problem)
    plain_losses: list[float] = []
    fused_losses: list[float] = []
    plain_watch, fused_watch = Stopwatch(), Stopwatch()
    for size in blocks(steps):
        _run_block(plain, size, plain_losses, plain_watch)
        _run_block(fused, size, fused_losses, fused_watch)
    return Outcome(
        rung,
        np.array(plain_losses),
        np.array(fused_losses),
        plain_watch.median(),
        fused_watch.median(),
        budget_for(rung, problem.dtype),
        rung.check(problem),
    )
