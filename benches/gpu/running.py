"""Runs the rows in their order, as far as the time goes; every row is written when it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .budget import Budget
from .cases import Case

Found = dict[str, Any]


def _of(case: Case) -> Found:
    return {
        "id": case.id,
        "shape": list(case.shape),
        "dtype": case.dtype,
        "tf32": case.tf32,
        "work": case.work,
        "input_gradient": case.input_gradient,
        "products": case.products,
        "operations": case.operations,
    }


def run(
    cases: Iterable[Case],
    measure: Callable[[Case], Found],
    estimate: Callable[[Case], float],
    budget: Budget,
    written: Callable[[list[Found]], None],
) -> list[Found]:
    """The rows, measured, failed or skipped; ``written`` is told all of them after each."""
    rows: list[Found] = []
    for case in cases:
        row, began = _of(case), budget.used()
        needed = estimate(case)
        if not budget.fits(needed):
            reason = f"needs about {needed:.0f} s, {max(0.0, budget.left()):.0f} s are left"
            row |= {"status": "skipped", "reason": reason, "peers": {}}
        else:
            try:
                row |= {"status": "measured", **measure(case)}
            except Exception as error:  # the other rows may do better
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                row |= {"status": "failed", "reason": reason, "peers": {}}
        row["seconds"] = round(budget.used() - began, 2)
        rows.append(row)
        written(rows)
    return rows
