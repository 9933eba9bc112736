"""What each column of a table becomes: told from its cells, learnt from the training part alone."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

from .columns import Array, Numbers, as_numbers, as_targets, as_text, fault, is_number
from .failures import BadInput
from .preparation import Column, LeftOut, Number, Preparation, Text, encoder_for, numbers_pipeline
from .tables import Table

# A column with this share of numbers is one of numbers, and its other cells are mistakes.
MOSTLY = 0.9
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?([./-])\d\d?\1(\d{4}|\d\d)\b")


def _read(table: Table, place: int, text: Collection[str]) -> Numbers | None:
    """The column as numbers; ``None`` if it is one of text.

    Raises:
        BadInput: nearly all of its cells are numbers, or one is infinite.
    """
    cells, name = table.cells.column(place), table.names[place]
    if name in text:
        return None
    found = as_numbers(cells, table.source.decimal_comma)
    wrong, present = int(found.wrong.sum()), int((~found.missing).sum())
    bad = np.isinf(found.values)
    advice = ""
    if wrong and present - wrong >= MOSTLY * present:
        bad |= found.wrong
        advice = (
            f", as {present - wrong} of {present} are; NA is a missing one,"
            f" --text {name!r} takes all as text"
        )
        if found.wrong[0] and not table.source.has_header:
            advice = "; if line 1 is a header, --target with a name of it says so"
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        cell = cells[row].as_py()
        told = found.wrong[row] and not is_number(str(cell), comma=True)
        table.refuse(row, name, fault(cell) + (advice if told else ""))
    return None if wrong else found


def targets(table: Table, place: int, text: Collection[str]) -> tuple[Array, Array]:
    """The rows that have a target, and those targets; their dtype says the task.

    Raises:
        BadInput: nearly all of the column's cells are numbers, or one is infinite.
    """
    found = _read(table, place, text)
    cells = table.cells.column(place)
    labels = as_text(cells)
    rows = np.flatnonzero([label is not None for label in labels])
    if found is None:
        return rows, labels[rows].astype(str)
    return rows, as_targets(cells.take(rows).to_pylist(), found.at(rows))


def fit(table: Table, target: int, train: Array, text: Collection[str]) -> Preparation:
    """Learns the preparation of every column but the target.

    Args:
        target: the place of the target's column.
        train: rows of the training part.
        text: names of columns to take as text, though they hold numbers.

    Raises:
        BadInput: no column can be used, or a cell is no number where nearly all others are.
    """
    for name in text:
        if name not in table.names:
            known = ", ".join(table.names)
            raise BadInput(f"{table.path}: --text: has no column {name!r}; its columns: {known}")
    columns: list[Column] = []
    values: list[Array] = []
    for place, name in enumerate(table.names):
        if place == target:
            continue
        found = _read(table, place, text) if name else None
        if not name:
            columns.append(LeftOut(name, "has no name"))
        elif found is None:
            columns.append(_text(name, as_text(table.cells.column(place))[train]))
        elif found.missing[train].all():
            part = "" if found.missing.all() else " in the training part"
            columns.append(LeftOut(name, f"is empty{part}"))
        else:
            columns.append(Number(name, truths=found.truths))
            values.append(found.values[train])
    too_large = BadInput(f"{table.path}: its values are too large to scale")
    try:
        mean, scale = _fit_numbers(columns, values)
    except ValueError as error:  # scikit-learn's scaler, of a median beyond float64
        raise too_large from error
    medians = [column.median for column in columns if isinstance(column, Number)]
    if not np.isfinite(np.array([*medians, *mean, *scale], np.float64)).all():
        raise too_large
    preparation = Preparation(
        columns, mean, scale, table.names[target], text=list(text), header=table.source.has_header
    )
    if not preparation.used:
        raise BadInput(f"{table.path}: no column is left to learn from")
    return preparation


def _fit_numbers(columns: list[Column], values: list[Array]) -> tuple[list[float], list[float]]:
    """Puts medians into the columns of numbers, and gives what their features are scaled by."""
    if not values:
        return [], []
    pipeline = numbers_pipeline(impute=True)
    with np.errstate(over="ignore", invalid="ignore"):
        pipeline.fit(np.stack(values, 1))
    imputer, scaler = pipeline.named_steps["imputer"], pipeline.named_steps["scaler"]
    places = [place for place, column in enumerate(columns) if isinstance(column, Number)]
    for number, place in enumerate(places):
        column = columns[place]
        assert isinstance(column, Number)
        columns[place] = Number(
            column.name,
            float(imputer.statistics_[number]),
            bool(number in imputer.indicator_.features_),
            column.truths,
        )
    return scaler.mean_.tolist(), scaler.scale_.tolist()


def _text(name: str, values: Array) -> Column:
    encoder = encoder_for(values[:, None])
    rare = encoder.infrequent_categories_[0]
    rare = [] if rare is None else list(rare)
    kept = [value for value in encoder.categories_[0] if value not in set(rare)]
    if not kept:
        some = next(value for value in rare if value is not None)
        dates = "dates are text here; " * bool(_DATE.match(some))
        return LeftOut(name, f"{dates}no value stands in it twice, as {some[:30]!r}")
    if len(kept) == 1 and not rare:
        return LeftOut(name, "is the same in every row" if kept[0] is not None else "is empty")
    return Text(name, kept, bool(rare))
