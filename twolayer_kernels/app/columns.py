"""The cells of one column as numbers or as text: what counts as a number, as missing, as true."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow.csv import ConvertOptions

Array = NDArray[Any]
Cells = Any  # a pyarrow Array or ChunkedArray: pyarrow has no types

# pyarrow's own list: the empty cell, NA, N/A, NaN, null and their spellings.
MISSING = frozenset(ConvertOptions().null_values)
TRUE, FALSE = ("True", "TRUE", "true"), ("False", "FALSE", "false")
# 1.234,5: with a decimal comma, points may set thousands apart.
_THOUSANDS = r"^[+-]?\d{1,3}(\.\d{3})+,\d+$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity|nan)$"


def is_number(cell: str, comma: bool = False) -> bool:
    """Whether the cell is a number, with a point or, where ``comma``, with a decimal comma."""
    if comma and re.match(_THOUSANDS, cell):
        return True
    for text in (cell, cell.replace(",", ".", 1) if comma and "." not in cell else cell):
        try:
            float(text)
        except ValueError:
            continue
        return True
    return False


def is_value(cell: str, comma: bool = False) -> bool:
    """Whether the cell cannot be a column's name: a number, a truth value, a word for missing."""
    return is_number(cell, comma) or cell in (*TRUE, *FALSE) or (cell != "" and cell in MISSING)


class Numbers(NamedTuple):
    """A column read as numbers.

    Args:
        values: float64; NaN where missing or wrong.
        missing: where there is no value.
        wrong: where there is one and it is no number.
        decimal: the sign between whole and part, where the column has any.
        truths: the column holds True and False, which are 1 and 0.
    """

    values: Array
    missing: Array
    wrong: Array
    decimal: str = ""
    truths: bool = False

    @property
    def all_numbers(self) -> bool:
        return not self.wrong.any()

    def at(self, rows: Array) -> Numbers:
        return self._replace(
            values=self.values[rows], missing=self.missing[rows], wrong=self.wrong[rows]
        )


def _mask(cells: Cells) -> Array:
    return np.asarray(cells.to_numpy(zero_copy_only=False), bool)


def _is_missing(text: Cells) -> Cells:
    return pc.or_(pc.is_null(text), pc.is_in(text, pa.array(sorted(MISSING))))


def _without(text: Cells, gone: Cells) -> Cells:
    """The text, null where ``gone``."""
    # Not the scalar None: beside a slice it gives other cells' bytes before pyarrow 24
    # (apache/arrow#49410).
    return pc.if_else(gone, pa.nulls(len(text), pa.string()), text)


def _parsed(text: Cells) -> tuple[Array, Array]:
    """float64 values of text with a decimal point, and where it is none, nulls apart."""
    try:
        values = pc.cast(text, pa.float64())
        wrong = pa.array(np.zeros(len(text), bool))
    except pa.ArrowInvalid:
        good = pc.match_substring_regex(text, _NUMBER)
        values = pc.cast(_without(text, pc.invert(good)), pa.float64())
        wrong = pc.fill_null(pc.invert(good), False)
    return values.to_numpy(zero_copy_only=False), _mask(wrong)


def _contains(text: Cells, sign: str) -> bool:
    return bool(pc.any(pc.match_substring(text, sign)).as_py())


def as_numbers(cells: Cells, decimal_comma: bool) -> Numbers:
    """The column as numbers.

    Args:
        cells: text, numbers or truth values.
        decimal_comma: whether text may have decimal commas; the column is read with the sign
            that makes more cells numbers.
    """
    if not pa.types.is_string(cells.type):
        truths = pa.types.is_boolean(cells.type)
        values = pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        missing = np.isnan(values)
        return Numbers(values, missing, np.zeros(len(values), bool), truths=truths)
    gone = _is_missing(cells)
    text, missing = _without(cells, gone), _mask(gone)
    if not missing.all() and pc.all(pc.is_in(text, pa.array([*TRUE, *FALSE, None]))).as_py():
        true = _mask(pc.is_in(text, pa.array(TRUE)))
        values = np.where(missing, np.nan, true.astype(np.float64))
        return Numbers(values, missing, np.zeros(len(values), bool), truths=True)
    values, wrong = _parsed(text)
    decimal = "." if _contains(text, ".") else ""
    if decimal_comma and wrong.any():
        grouped = pc.match_substring_regex(text, _THOUSANDS)
        text = pc.if_else(grouped, pc.replace_substring(text, ".", ""), text)
        with_point = pc.match_substring(text, ".")
        commas = pc.replace_substring(pc.if_else(with_point, "no number", text), ",", ".")
        comma_values, comma_wrong = _parsed(commas)
        if comma_wrong.sum() < wrong.sum():
            values, wrong, decimal = comma_values, comma_wrong, ","
    return Numbers(values, missing, wrong, decimal)


def as_text(cells: Cells) -> Array:
    """The column as an array of str, ``None`` where there is no value."""
    if not pa.types.is_string(cells.type):
        cells = pc.cast(cells, pa.string())
    text: Array = _without(cells, _is_missing(cells)).to_numpy(zero_copy_only=False)
    return text


def not_among(cells: Cells, categories: list[str | None]) -> tuple[int, str]:
    """How many cells hold other text than ``categories``, of which ``None`` is none; and one."""
    text = cells if pa.types.is_string(cells.type) else pc.cast(cells, pa.string())
    text = _without(text, _is_missing(text))
    known = pc.is_in(text, pa.array(categories, pa.string()))
    others = text.filter(pc.invert(known))
    return len(others), str(others[0].as_py() or "(missing)") if len(others) else ""


def as_targets(labels: list[Any], numbers: Numbers) -> Array:
    """Targets whose dtype says the task: int64 or str are classes, float64 is a quantity.

    Whole numbers that are written in a way of their own (``01``) or are too large stay text: each
    is a class by its label.

    Args:
        labels: the column's cells, none of them missing.
        numbers: the same column as numbers.
    """
    if numbers.truths or not numbers.all_numbers or numbers.missing.any():
        return np.array([str(label) for label in labels])
    if not any(isinstance(label, float) for label in labels):
        try:
            whole = [int(label) for label in labels]
        except ValueError:
            return numbers.values
        as_read = all(str(n) == str(cell).strip() for n, cell in zip(whole, labels, strict=True))
        if as_read and all(-(2**63) <= n < 2**63 for n in whole):
            return np.array(whole, np.int64)
        return np.array([str(label) for label in labels])
    return numbers.values


def fault(cell: object) -> str:
    """What is wrong with a cell that is no finite number, or is missing."""
    if cell is None or cell == "":
        return "is empty"
    if isinstance(cell, float) or is_number(str(cell), comma=True):
        digits = re.search(r"\d[.,]\d", str(cell)) and "e" not in str(cell).lower()
        if isinstance(cell, str) and digits:
            return f"is {cell}, with another decimal sign than the column's other cells"
        return f"is {cell}, not a finite number"
    return f"is no number: {str(cell)[:40]!r}"
