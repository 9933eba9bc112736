"""The plain-text report at the end of a run: the tests, the rows, the goals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .goals import Outcome
from .peers import (
    AUTOTUNED,
    COMPILED,
    CONTROL,
    DEFAULT,
    EAGER,
    GRAPH,
    OUR_GRAPH,
    OURS,
    PRODUCTS,
    RECOMPUTE,
)
from .results import ratio, seconds
from .running import reasons

# Each with the peer of ours that it is held against.
RATIOS = {
    EAGER: OURS,
    COMPILED: OURS,
    AUTOTUNED: OURS,
    GRAPH: OUR_GRAPH,
    PRODUCTS: OURS,
    RECOMPUTE: OURS,
}
_HEADS = ("row", "ours", "graph", "TFLOP/s", "+-", "default", "x eager", "x compile", "x max-at",
          "graphs", "of mm", "x recomp", "host us", "eager us", "peak MB", "recomp MB")  # fmt: skip


def duration(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1e6:.1f} us" if value < 1e-3 else f"{value * 1e3:.2f} ms"


def fixed(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def aligned(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    table = [tuple(heads), *map(tuple, lines)]
    widths = [max(len(line[i]) for line in table) for i in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )


def _line(row: dict[str, Any]) -> list[str]:
    ours = row["peers"].get(OURS, {})
    time = seconds(row, OURS)

    def of(peer: str, key: str, scale: float, digits: int = 0) -> str:
        value = row["peers"].get(peer, {}).get(key)
        return "" if value is None else fixed(value * scale, digits)

    return [
        row["id"],
        duration(time),
        duration(seconds(row, OUR_GRAPH)),
        "" if time is None else fixed(row["operations"] / time / 1e12, 1),
        "" if time is None else f"{(ours['high'] - ours['low']) / 2 / time:.1%}",
        fixed(ratio(row, EAGER, DEFAULT)),
        *(fixed(ratio(row, peer, own)) for peer, own in RATIOS.items()),
        of(OURS, "host", 1e6, 1),
        of(EAGER, "host", 1e6, 1),
        of(OURS, "peak_bytes", 1e-6),
        of(RECOMPUTE, "peak_bytes", 1e-6),
    ]


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    notes = []
    for row in rows:
        notes += [f"{row['id']}, {name}: {why}" for name, why in reasons(row).items()]
        for peer, found in row["peers"].items():
            if "error" in found:
                notes.append(f"{row['id']}, {peer}: {found['error']}")
    ours = [row["peers"].get(OURS, {}) for row in rows]
    gains = [one["before"] / one["median"] for one in ours if {"before", "median"} <= one.keys()]
    if gains:
        notes.append(f"ours as tuned, of its speed before: {min(gains):.2f} to {max(gains):.2f}")
    controls = [r for row in rows if (r := ratio(row, CONTROL, EAGER)) is not None]
    if controls:
        notes.append(f"control, eager against itself: {min(controls):.3f} to {max(controls):.3f}")
    return notes


def checks_in_a_line(results: dict[str, Any]) -> str:
    tests = results["tests"]
    said = {True: "clean", False: "FAULTS", None: "no answer"}[tests["sanitizer"]["passed"]]
    return (
        f"exact: {tests['smoke']['summary']}; tests: {tests['summary']}; compute-sanitizer: {said}"
    )


def text(results: dict[str, Any], found: Iterable[Outcome]) -> str:
    machine, rows = results["machine"], results["rows"]
    head = (
        f"{machine['name']}, driver {machine['driver']}, CUDA {machine['cuda']},"
        f" torch {machine['torch']}, triton {machine['triton']}, commit {machine['commit']}"
    )
    parts = [head, checks_in_a_line(results)]
    if not results["trustworthy"]:
        parts.append("THE FIGURES BELOW ARE NOT TRUSTWORTHY: not all checks passed")
        parts += results["tests"]["smoke"]["failures"] + results["tests"]["failures"]
    lines = [_line(row) for row in rows if seconds(row, OURS) is not None]
    parts += ["", aligned(_HEADS, lines), ""]
    parts.append(
        "ours, graph: median time, plain and as a graph; +-: half the quartiles' distance;"
        " default: eager's time over that of the network without a named backend;"
        " x: time of the peer over ours; graphs: eager's over ours;"
        " of mm: the time of the row's bare torch.mm over ours (5 products, 6 with the input's"
        " gradient, 2 forward); peak: over one step"
    )
    parts += [*_notes(rows), ""]
    goals = [
        (
            one.text,
            f"{one.sign} {one.bound:.2f}",
            fixed(one.figure, 3) or "-",
            ("" if one.reached else "missed" if one.figure is not None else "not measured"),
            f"{one.measured}/{one.rows}",
            one.worst,
        )
        for one in found
    ]
    parts.append(aligned(("goal", "bound", "figure", "", "rows", "worst row"), goals))
    return "\n".join(parts)
