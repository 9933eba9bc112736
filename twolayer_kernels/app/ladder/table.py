"""The ladder's table, and the command that fills it."""

from __future__ import annotations

import torch
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .. import words
from ..failures import RunFailed
from ..machine import check_device, describe_backend, set_threads
from .problem import BATCH, HIDDEN_FEATURES, IN_FEATURES, OUT_FEATURES, Problem
from .rungs import Rung
from .running import BUDGETS, START_STEPS, Outcome, Side, run


def _distance(found: float, allowed: float) -> str:
    text = words.distance(found)
    if not found <= allowed:
        return f"[red]{text}[/red]"
    return f"[dim]({text})[/dim]" if allowed == float("inf") else text


def _cells(outcome: Outcome, twin: Side, plain: str = "", fault: str | None = None) -> list[str]:
    """A twin's part of the table."""
    is_right = fault is None and outcome.problem_of(twin) is None
    return [
        words.loss(twin.losses[0]),
        words.loss(twin.losses[-1]),
        _distance(outcome.start_distance(twin), outcome.budget.start),
        _distance(outcome.whole_distance(twin), outcome.budget.whole),
        plain,
        words.microseconds(twin.seconds),
        words.ratio(outcome.plain.seconds, twin.seconds),
        "[green]ok[/green]" if is_right else "[red]OUT[/red]",
    ]


def make_table(outcomes: list[Outcome]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
    table.add_column("rung", no_wrap=True)
    for first_line, second_line in (
        ("first", "loss"),
        ("last", "loss"),
        ("apart", "start"),
        ("apart", "all"),
        ("plain", "us/step"),
        ("twin", "us/step"),
        ("", "ratio"),
    ):
        table.add_column(f"{first_line}\n{second_line}", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for outcome in outcomes:
        plain = words.microseconds(outcome.plain.seconds)
        table.add_row(outcome.rung.title, *_cells(outcome, outcome.fused, plain, outcome.fault))
        if outcome.fit is None:
            table.add_row("  by fit", *[""] * 5, "-", "-")
        else:
            table.add_row("  by fit", *_cells(outcome, outcome.fit))
    return table


def _notes(outcomes: list[Outcome], dtype: torch.dtype, name: str) -> list[str]:
    budget = BUDGETS[dtype]
    notes = [
        "apart: largest relative distance of the twin's loss curve from the plain one;"
        f" {name} allows {budget.start:.0e} over the first {START_STEPS} steps (start),"
        f" {budget.whole:.0e} over all."
    ]
    for outcome in outcomes:
        if outcome.budget != budget:  # a chaotic rung in float32
            notes.append(
                f"{outcome.rung.name}: chaotic in {name}, judged by its first {START_STEPS} steps;"
                " --dtype float64 judges them all."
            )
    notes.append("ratio: median time of a plain step over that of the twin's: fused, or by fit.")
    if any(outcome.fit is None for outcome in outcomes):
        notes.append("-: a step that is not the plain network's own, or not on the CPU.")
    return notes


def climb(
    rungs: list[Rung],
    *,
    steps: int,
    seed: int,
    dtype_name: str,
    device: str,
    backend: str | None,
    threads: int | None,
    console: Console,
) -> None:
    """Runs the rungs and prints the table.

    Raises:
        RunFailed: a rung is out of budget.
        BadInput: there is no such device, or the backend cannot run such tensors.
    """
    set_threads(threads)
    dtype = {"float32": torch.float32, "float64": torch.float64}[dtype_name]
    check_device(device)
    kernels = describe_backend(device, dtype, backend)
    problem = Problem(seed, dtype, device, backend)
    outcomes = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("ladder", total=len(rungs))
        for rung in rungs:
            progress.update(task, description=rung.title)
            outcomes.append(run(rung, problem, steps))
            progress.advance(task)
    sizes = f"{BATCH} x {IN_FEATURES} x {HIDDEN_FEATURES} x {OUT_FEATURES}"
    title = (
        f"{sizes}, {steps} steps, {dtype_name} on {device} by {kernels}, threads:"
        f" {torch.get_num_threads()}"
    )
    console.print(title, highlight=False, markup=False)
    console.print(make_table(outcomes))
    for note in _notes(outcomes, dtype, dtype_name):
        console.print(note, style="dim", highlight=False)
    faults = [f"{o.rung.title}: {o.problem}" for o in outcomes if o.problem is not None]
    if faults:
        raise RunFailed("out of budget: " + "; ".join(faults))
