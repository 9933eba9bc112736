"""What was done to a table, column by column, as people read it."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .data import Data
from .preparation import Column, LeftOut, Number, Preparation

_NAMES = 3
_CATEGORIES = 6


def listed(names: list[str], most: int) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _is_plain(column: Column) -> bool:
    return isinstance(column, Number) and not column.indicator and not column.truths


def _row(column: Column) -> tuple[str, str, str]:
    if isinstance(column, LeftOut):
        return "left out", "", column.why
    if isinstance(column, Number):
        done = ["False is 0, True is 1"] if column.truths else []
        done += ["scaled"]
        if column.indicator:
            done += [f"where missing: the median, {column.median:g}, and a feature that says so"]
        kind = "truth value" if column.truths else "number"
        return kind, str(1 + column.indicator), "; ".join(done)
    values = [value if value is not None else "(missing)" for value in column.categories]
    rare = "; one more for rare values" if column.rare else ""
    each = f"one feature each: {listed([v[:20] for v in values], _CATEGORIES)}{rare}"
    return "text", str(len(values) + column.rare), each


def columns_table(preparation: Preparation) -> Table | None:
    """A row for each column, those of plain numbers together; ``None`` if there are no others."""
    plain = [column.name for column in preparation.columns if _is_plain(column)]
    if len(plain) == len(preparation.columns):
        return None
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("column", overflow="fold")
    table.add_column("taken as", no_wrap=True)
    table.add_column("features", justify="right")
    table.add_column("what was done", overflow="fold")
    if plain:
        kind = "numbers" if len(plain) > 1 else "number"
        table.add_row(escape(listed(plain, _NAMES)), kind, str(len(plain)), "scaled")
    for column in preparation.columns:
        if not _is_plain(column):
            kind, features, done = _row(column)
            name = escape(column.name) if column.name else "(no name)"
            table.add_row(name, kind, features, escape(done))
    return table


def show(data: Data, console: Console) -> None:
    """Prints what was done to the data's table; nothing where every cell is a plain number.

    That a table has no header is said in any case: a year in one makes it look like a row.
    """
    preparation = data.preparation
    if preparation is not None and preparation.target and not preparation.header:
        line = "no header: columns are numbered from 1; --target NAME makes line 1 one"
        console.print(line, highlight=False, markup=False)
    if data.without_target:
        rows = "1 row has" if data.without_target == 1 else f"{data.without_target} rows have"
        console.print(f"{rows} no target: left out", highlight=False, markup=False)
    if preparation is None or (table := columns_table(preparation)) is None:
        return
    console.print(table)
    console.print()
