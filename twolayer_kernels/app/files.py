"""Samples that are numbers already: ``.npz`` files, and tables under ``--no-prepare``.

npz: arrays ``x`` (samples, features) and ``y`` (samples,) or, for regression,
(samples, outputs). Tables: every cell a number; the target, which may be text, is the last
column, or the one that ``--target`` names. Each fault becomes one line.

Integer or text targets make a classification, decimal ones a regression.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .columns import MISSING, as_numbers, as_targets, fault, is_number
from .failures import BadInput
from .tables import KINDS, is_table, read_table, target_place

Array = NDArray[Any]


class Samples(NamedTuple):
    """Raw ``x`` (samples, features), float64, and ``y``, whose dtype says which task it is.

    ``columns`` and ``target`` are a table's names, its own where it has a ``header``.
    """

    name: str
    x: Array
    y: Array
    columns: list[str] | None = None
    target: str = ""
    header: bool = False


def read_samples(path: Path, target: str | None) -> Samples:
    """The samples of a file.

    Raises:
        BadInput: the file cannot be read as such; the message names it and the fault.
    """
    kind = path.suffix.lower()
    if kind != ".npz" and not is_table(path):
        raise BadInput(f"{path}: must be a {KINDS} file")
    if kind == ".npz" and target is not None:
        raise BadInput(f"{path}: --target names a column of a table; an .npz has its y")
    try:
        if path.stat().st_size == 0:
            raise BadInput(f"{path}: the file is empty")
        return _read_npz(path) if kind == ".npz" else _read_table(path, target)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from error


def _arrays(path: Path, keys: tuple[str, ...]) -> list[Array]:
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                wanted = " and ".join(keys)
                raise BadInput(f"{path}: is a single array (.npy), needs an .npz with {wanted}")
            for key in keys:
                if key not in arrays:
                    found = ", ".join(arrays.files) or "none"
                    raise BadInput(f"{path}: has no array {key!r}; its arrays: {found}")
            return [arrays[key] for key in keys]
    except (ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise BadInput(f"{path}: is no readable .npz file of plain arrays ({error})") from error


def _check_x(path: Path, x: Array) -> None:
    if x.dtype.kind not in "fiub":
        raise BadInput(f"{path}: x must hold numbers, got dtype {x.dtype}")
    if x.ndim != 2 or x.shape[1] == 0:
        raise BadInput(f"{path}: x must have shape (samples, features), got {x.shape}")


def _check_finite(path: Path, name: str, array: Array) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise BadInput(f"{path}: {name}{list(place)} is {array[place]}, not a finite number")


def read_features(path: Path) -> Array:
    """The array ``x`` (samples, features) of an ``.npz`` file, float64.

    Raises:
        BadInput: the file cannot be read as such.
    """
    try:
        (x,) = _arrays(path, ("x",))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from error
    _check_x(path, x)
    _check_finite(path, "x", x)
    return x.astype(np.float64)


def _read_npz(path: Path) -> Samples:
    x, y = _arrays(path, ("x", "y"))
    _check_x(path, x)
    if y.dtype.kind not in "fiubU":
        raise BadInput(f"{path}: y must hold numbers or text, got dtype {y.dtype}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 and not (y.ndim == 2 and y.dtype.kind == "f" and y.shape[1] > 0):
        raise BadInput(
            f"{path}: y must have shape (samples,), or (samples, outputs) if decimal, got {y.shape}"
        )
    if len(x) != len(y):
        raise BadInput(f"{path}: x has {len(x)} samples and y {len(y)}")
    _check_finite(path, "x", x)
    _check_finite(path, "y", y)
    if y.dtype == np.uint64 and y.size and y.max() >= 2**63:
        raise BadInput(f"{path}: y must hold classes below 2^63, got {y.max()}")
    if y.dtype.kind in "ub":
        y = y.astype(np.int64)
    y = y.astype(np.float64) if y.dtype.kind == "f" else y
    return Samples(str(path), x.astype(np.float64), y)


def _read_table(path: Path, target: str | None) -> Samples:
    """The table's numbers as they are; the first cell that is none is named."""
    table = read_table(path, [target] if target is not None else [])
    column = target_place(table, target)
    numbers = [as_numbers(cells, table.source.decimal_comma) for cells in table.cells.columns]
    bad = np.stack([~np.isfinite(found.values) | found.truths for found in numbers], 1)
    labels = table.cells.column(column).to_pylist()
    if not all(isinstance(label, int | float) or is_number(label or "0", True) for label in labels):
        bad[:, column] = [label is None or label in MISSING for label in labels]
    if bad.any():
        row, place = (int(i) for i in np.argwhere(bad)[0])
        cell = table.cells.column(place)[row].as_py()
        raise BadInput(f"{table.where(row, place)} {fault(cell)}")
    x = np.stack([found.values for found in numbers], 1)
    names = table.names[:column] + table.names[column + 1 :]
    y = as_targets(labels, numbers[column])
    return Samples(
        str(path), np.delete(x, column, 1), y, names, table.names[column], table.source.has_header
    )
