"""Runs a pass over the rows in their order, as far as the time goes, and writes after each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .budget import Budget
from .cases import CASES, Case
from .measuring import in_a_line
from .passes import PASSES, Pass

Row = dict[str, Any]
# The peers of a case and those beside them, within some seconds.
Measure = Callable[[Case, Sequence[str], Sequence[str], float], dict[str, Any]]

_SCARCELY = 1.0  # with less than this nothing is begun


def row_of(case: Case) -> Row:
    """A row that no pass has reached."""
    return {
        "id": case.id,
        "shape": list(case.shape),
        "dtype": case.dtype,
        "tf32": case.tf32,
        "work": case.work,
        "input_gradient": case.input_gradient,
        "products": case.products,
        "operations": case.operations,
        "status": "not reached",
        "passes": {},
        "peers": {},
    }


def rows_of(cases: Iterable[Case], earlier: Iterable[Row] = ()) -> list[Row]:
    """A row for each case; those of an earlier call, also of other cases, are kept."""
    known = {row["id"]: row for row in earlier}
    wanted = {case.id for case in cases}
    return [
        known.get(case.id) or row_of(case)
        for case in CASES
        if case.id in wanted or case.id in known
    ]


def status_of(row: Row) -> str:
    """``measured`` is what every pass so far has measured; ``partly``, what one of them has."""
    statuses = {one["status"] for one in row["passes"].values()}
    if statuses == {"measured"}:
        return "measured"
    if "measured" in statuses:
        return "partly"
    return "failed" if "failed" in statuses else "skipped" if statuses else "not reached"


def reasons(row: Row) -> dict[str, str]:
    """Why passes have no figures, by their names in the order of the passes."""
    return {
        one.name: f"{found['status']}: {found['reason']}"
        for one in PASSES
        if "reason" in (found := row["passes"].get(one.name, {}))
    }


def _through(one: Pass, case: Case, row: Row, measure: Measure, budget: Budget) -> None:
    """One row of the pass: its peers and the pass's status."""
    needed, began = one.needed(case), budget.used()
    found: dict[str, Any] = {"status": "measured"}
    if budget.left() < max(needed, _SCARCELY):
        reason = f"needs about {needed:.0f} s, {max(0.0, budget.left()):.0f} s are left"
        found = {"status": "skipped", "reason": reason}
    else:
        try:
            peers = one.peers_of(case)
            new = measure(case, peers, one.beside, budget.at_most(one.most))
            for name, figures in new.items():
                before = row["peers"].get(name, {}).get("median")
                row["peers"][name] = figures | ({} if before is None else {"before": before})
        except Exception as error:  # the other rows may do better
            found = {"status": "failed", "reason": in_a_line(error)}
    row["passes"][one.name] = {**found, "seconds": round(budget.used() - began, 2)}
    row["status"] = status_of(row)


def run(
    one: Pass,
    cases: Iterable[Case],
    rows: list[Row],
    measure: Measure,
    budget: Budget,
    written: Callable[[Pass, Row], None],
) -> None:
    """The pass over ``cases``, into their ``rows``; ``written`` is told after each."""
    by_id = {row["id"]: row for row in rows}
    for case in cases:
        row = by_id[case.id]
        _through(one, case, row, measure, budget)
        written(one, row)
