"""What the GPU kernels are to reach, and how far a run got."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .cases import BOTH, TRANSFORMER, TUTORIAL
from .peers import AUTOTUNED, DEFAULT, EAGER, GRAPH, OUR_GRAPH, OURS, PRODUCTS, RECOMPUTE
from .results import ratio

Row = dict[str, Any]
NOISE = 0.02  # where both run the same kernels, each is the slower one in half of all rows
_BYTES = {"float32": 4, "bfloat16": 2}


class Goal(NamedTuple):
    """A bound on the worst figure among the rows that it speaks of."""

    text: str
    speaks_of: Callable[[Row], bool]
    figure: Callable[[Row], float | None]
    bound: float
    at_least: bool = True


class Outcome(NamedTuple):
    text: str
    bound: float
    at_least: bool
    figure: float | None  # None: no row that the goal speaks of was measured
    worst: str  # the row
    measured: int
    rows: int

    @property
    def reached(self) -> bool:
        if self.figure is None:
            return False
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound

    @property
    def sign(self) -> str:
        return ">=" if self.at_least else "<="


def _any(row: Row) -> bool:
    return True


def _both(row: Row) -> bool:
    return bool(row["work"] == BOTH)


def _large(dtype: str) -> Callable[[Row], bool]:
    """Forward and backward of the transformer's shapes, without TF32."""
    shapes = [list(shape) for shape in TRANSFORMER]
    return lambda row: (
        _both(row) and row["shape"] in shapes and row["dtype"] == dtype and not row["tf32"]
    )


def _tutorial(row: Row) -> bool:
    return _both(row) and row["shape"] == list(TUTORIAL)


def _against(peer: str, ours: str = OURS) -> Callable[[Row], float | None]:
    return lambda row: ratio(row, peer, ours)


def _error(row: Row) -> float | None:
    """Our error over eager's, of the result where that is largest."""
    ours, eager = (row["peers"].get(peer, {}).get("errors") for peer in (OURS, EAGER))
    if not ours or not eager:
        return None
    return max(float(ours[name]) / max(float(eager[name]), 1e-30) for name in eager)


def _saved(row: Row) -> float | None:
    """What recompute does not hold between forward and backward, over the activation's size."""
    keeping, recomputing = (
        row["peers"].get(peer, {}).get("held_bytes") for peer in (OURS, RECOMPUTE)
    )
    if keeping is None or recomputing is None:
        return None
    batch, _, hidden, _ = row["shape"]
    return float(keeping - recomputing) / (batch * hidden * _BYTES[row["dtype"]])


GOALS = [
    Goal("by default never slower than eager", _any, _against(EAGER, DEFAULT), 1 - NOISE),
    Goal("large bfloat16, forward + backward, x eager", _large("bfloat16"), _against(EAGER), 1.05),
    Goal("the same, of the bare products' speed", _large("bfloat16"), _against(PRODUCTS), 0.98),
    Goal("x torch.compile max-autotune, any row", _any, _against(AUTOTUNED), 1.0),
    Goal("float32 as tf32x3, x eager ieee", _large("float32"), _against(EAGER), 2.0),
    Goal("the same, its error of eager's", _large("float32"), _error, 2.0, at_least=False),
    Goal("tutorial, forward + backward, x eager", _tutorial, _against(EAGER), 3.0),
    Goal("the same, both as graphs", _tutorial, _against(GRAPH, OUR_GRAPH), 1.2),
    Goal("recompute, saved of the activation", _both, _saved, 1.0),
]


def outcome(goal: Goal, rows: Iterable[Row]) -> Outcome:
    about = [row for row in rows if goal.speaks_of(row)]
    figures = [(figure, row["id"]) for row in about if (figure := goal.figure(row)) is not None]
    worst: tuple[float | None, str] = (None, "")
    if figures:
        worst = min(figures) if goal.at_least else max(figures)
    return Outcome(goal.text, goal.bound, goal.at_least, *worst, len(figures), len(about))


def outcomes(rows: Iterable[Row]) -> list[Outcome]:
    rows = list(rows)
    return [outcome(goal, rows) for goal in GOALS]


def as_data(found: Iterable[Outcome]) -> list[dict[str, Any]]:
    return [{**one._asdict(), "reached": one.reached} for one in found]
