"""What the CPU kernels are to reach, and how far a run got: the rows of docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from .table import medians, operations, peak_of

Times = dict[str, dict[str, dict[str, float]]]


class Goal(NamedTuple):
    work: str
    figure: Callable[[Times, dict[str, Any]], float]
    bound: float
    at_least: bool = True

    def reached(self, figure: float) -> bool:
        return figure >= self.bound if self.at_least else figure <= self.bound


def _against(peer: str, row: str) -> Callable[[Times, dict[str, Any]], float]:
    """Time of the peer over ours in one row."""
    table = row.split("-")[0]

    def figure(times: Times, results: dict[str, Any]) -> float:
        return times[table][row][peer] / times[table][row]["fused"]

    return figure


def _share_of_peak(row: str) -> Callable[[Times, dict[str, Any]], float]:
    def figure(times: Times, results: dict[str, Any]) -> float:
        peak = peak_of(row, results["machine"])
        assert peak is not None
        return operations(results)[row] / times[row.split("-")[0]][row]["fused"] / peak

    return figure


def _worst_product(dtype: str) -> Callable[[Times, dict[str, Any]], float]:
    def figure(times: Times, results: dict[str, Any]) -> float:
        rows = {row: t for row, t in times["product"].items() if dtype in row}
        return min(t["onednn"] / t["fused"] for t in rows.values())

    return figure


def _numpy_front_end(row: str) -> Callable[[Times, dict[str, Any]], float]:
    """Time of NumPy by hand over that of our NumPy front end."""
    table = row.split("-")[0]
    return lambda times, results: times[table][row]["numpy"] / times[table][row]["fused numpy"]


def _pair(name: str) -> Callable[[Times, dict[str, Any]], float]:
    return lambda times, results: float(results["pairs"][name])


TUTORIAL, MIDDLE, LARGE = "64x1000x100x10", "256x512x512x512", "512x1024x4096x1024"

GOALS = [
    Goal(
        f"forward + backward, {TUTORIAL}",
        _against("eager", f"forward+backward-{TUTORIAL}-float32"),
        2.3,
    ),
    Goal(f"whole step, {TUTORIAL}", _against("eager", f"step-{TUTORIAL}-float32"), 2.0),
    Goal(f"whole step, {MIDDLE}", _against("eager", f"step-{MIDDLE}-float32"), 2.2),
    Goal(f"whole step, {LARGE}", _against("eager", f"step-{LARGE}-float32"), 2.2),
    Goal(
        f"share of the FMA peak, {MIDDLE}",
        _share_of_peak(f"forward+backward-{MIDDLE}-float32"),
        0.92,
    ),
    Goal(
        f"share of the FMA peak, {LARGE}", _share_of_peak(f"forward+backward-{LARGE}-float32"), 0.88
    ),
    Goal("the slowest product against oneDNN, float32", _worst_product("float32"), 1.0),
    Goal("the slowest product against oneDNN, bfloat16", _worst_product("bfloat16"), 1.0),
    Goal("bias and ReLU in the store, of the bare product", _pair("fused store"), 1.02, False),
    Goal("mask and bias gradient in the store, likewise", _pair("masked store"), 1.02, False),
    Goal("every step in the store at K = 64, likewise", _pair("narrow store"), 1.25, False),
    *(
        Goal(
            f"{dtype} forward + backward, {shape}",
            _against("eager", f"forward+backward-{shape}-{dtype}"),
            bound,
        )
        for dtype, bound in (("bfloat16", 1.2), ("float64", 1.9))
        for shape in (TUTORIAL, MIDDLE)
    ),
    *(
        Goal(f"inference, {shape}", _against("eager", f"forward-{shape}-float32"), bound)
        for shape, bound in (("1x64x64x4", 2.2), ("1x1000x100x10", 2.2), ("64x256x256x10", 2.0))
    ),
    *(
        Goal(
            f"NumPy front end, {shape}", _numpy_front_end(f"forward+backward-{shape}-float32"), 1.0
        )
        for shape in (TUTORIAL, MIDDLE, "1x64x64x4")
    ),
    Goal(
        "host cost of 8x8x8x8, of eager's",
        lambda times, results: (
            1 / _against("eager", "forward+backward-8x8x8x8-float32")(times, results)
        ),
        0.75,
        False,
    ),
    Goal("recompute: peak memory, of eager's", _pair("recompute memory"), 0.5, False),
    Goal("recompute: time, of saving", _pair("recompute time"), 1.25, False),
    Goal(f"two threads against one, {LARGE}", _pair("second thread"), 1.85),
    Goal(f"calls over 1.6 times the 5th percentile, {MIDDLE}", _pair("late calls"), 0.005, False),
    *(
        goal
        for name, shape in (("tutorial", TUTORIAL), ("middle", MIDDLE))
        for goal in (
            Goal(
                f"rate beside a busy process, of idle, {shape}", _pair(f"busy rate, {name}"), 0.58
            ),
            Goal(
                f"and what a late call loses, ms, {shape}", _pair(f"busy late, {name}"), 1.0, False
            ),
            Goal(
                f"12 busy processes: time of that on one thread, {shape}",
                _pair(f"crowd, {name}"),
                1.3,
                False,
            ),
        )
    ),
]


def show(results: dict[str, Any]) -> bool:
    """Prints goal and figure of each row; whether all are reached."""
    times = medians(results)
    table = Table(title="Goals", title_justify="left")
    for column in ("work", "goal", "figure", ""):
        table.add_column(column, justify="left" if column in ("work", "") else "right")
    all_reached = True
    for goal in GOALS:
        figure = goal.figure(times, results)
        reached = goal.reached(figure)
        all_reached &= reached
        sign = ">=" if goal.at_least else "<="
        table.add_row(
            goal.work, f"{sign} {goal.bound:.3g}", f"{figure:.3g}", "" if reached else "missed"
        )
    console = Console(width=160)
    console.print(table)
    console.print(f"control, plain torch against itself: {results['pairs']['control']:.3f}")
    return all_reached
