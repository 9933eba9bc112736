"""The tables of a run: a row for each work and size, a column for each peer, and ratios."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

TITLES = {
    "forward": "Forward under inference_mode",
    "forward+backward": "Forward + backward",
    "step": "Whole step: zero_grad, forward, mse_loss, backward, SGD",
    "product": "The bare matrix products of a step",
}
OURS = ("fused", "fused numpy")


def medians(results: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds, as ``[table][row][peer]``: the median over the blocks' medians."""
    blocks: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for bench in results["benchmarks"]:
        info = bench["extra_info"]
        blocks[info["table"], info["row"], info["peer"]].append(bench["stats"]["median"])
    tables: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for (name, row, peer), seconds in blocks.items():
        tables[name][row][peer] = median(seconds)
    return tables


def operations(results: dict[str, Any]) -> dict[str, int]:
    return {b["extra_info"]["row"]: b["extra_info"]["operations"] for b in results["benchmarks"]}


def peak_of(row: str, machine: dict[str, Any]) -> float | None:
    """The measured limit for the row's dtype, the mean of before and after the run."""
    for dtype, before in machine["peak_before"].items():
        if dtype in row:
            return float(before + machine["peak_after"][dtype]) / 2
    return None


def _seconds(value: float) -> str:
    return f"{value * 1e6:.1f} us" if value < 1e-3 else f"{value * 1e3:.2f} ms"


def show(results: dict[str, Any]) -> None:
    console = Console(width=160)
    machine = results["machine"]
    peaks = ", ".join(f"{rate / 1e9:.0f} {name}" for name, rate in machine["peak_before"].items())
    console.print(
        f"{machine['processor']}, {machine['instruction_set']}, {machine['threads']} threads,"
        f" torch {machine['torch']}, numpy {machine['numpy']}, commit {machine['commit']}\n"
        f"measured FMA peak in GFLOP/s: {peaks}"
    )
    work = operations(results)
    for name, rows in medians(results).items():
        peers = list(dict.fromkeys(peer for row in rows.values() for peer in row))
        table = Table(title=TITLES[name], title_justify="left")
        table.add_column("work")
        for peer in peers:
            table.add_column(peer, justify="right")
        for peer in peers:
            if peer not in OURS:
                table.add_column(f"x {peer}", justify="right")
        table.add_column("GFLOP/s", justify="right")
        table.add_column("of peak", justify="right")
        for row, times in rows.items():
            ours = times["fused"]
            ratios = [
                f"{times[peer] / ours:.2f}" if peer in times else ""
                for peer in peers
                if peer not in OURS
            ]
            rate = work[row] / ours
            peak = peak_of(row, machine)
            table.add_row(
                row,
                *(_seconds(times[peer]) if peer in times else "" for peer in peers),
                *ratios,
                f"{rate / 1e9:.0f}",
                f"{rate / peak:.0%}" if peak else "",
            )
        console.print(table)
