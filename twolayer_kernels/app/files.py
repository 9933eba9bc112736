"""Reading a user's samples from ``.npz`` and ``.csv`` files; each fault becomes one line.

npz: arrays ``x`` (samples, features) and ``y`` (samples,) or, for regression,
(samples, outputs). csv: a sample per line, separated by commas; a first line
without a number among its features is the header; the target is the last
column, or the one that ``--target`` names.

Integer or text targets make a classification, decimal ones a regression.
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .failures import BadInput

Array = NDArray[Any]


class Samples(NamedTuple):
    """Raw ``x`` (samples, features), float64, and ``y``, whose dtype says which task it is."""

    name: str
    x: Array
    y: Array


def read_samples(path: Path, target: str | None) -> Samples:
    """The samples of a file.

    Raises:
        BadInput: the file cannot be read as such; the message names it and the fault.
    """
    kind = path.suffix.lower()
    if kind not in (".npz", ".csv"):
        raise BadInput(f"{path}: must be a .npz or .csv file")
    if kind == ".npz" and target is not None:
        raise BadInput(f"{path}: --target names a column of a .csv file; an .npz has its y")
    try:
        if path.stat().st_size == 0:
            raise BadInput(f"{path}: the file is empty")
        x, y = _read_npz(path) if kind == ".npz" else _read_csv(path, target)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from error
    return Samples(str(path), x, y)


def _read_npz(path: Path) -> tuple[Array, Array]:
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise BadInput(f"{path}: is a single array (.npy), needs an .npz with x and y")
            for key in ("x", "y"):
                if key not in arrays:
                    found = ", ".join(arrays.files) or "none"
                    raise BadInput(f"{path}: has no array {key!r}; its arrays: {found}")
            x, y = arrays["x"], arrays["y"]
    except (ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise BadInput(f"{path}: is no readable .npz file of plain arrays ({error})") from error
    if x.dtype.kind not in "fiub":
        raise BadInput(f"{path}: x must hold numbers, got dtype {x.dtype}")
    if x.ndim != 2 or x.shape[1] == 0:
        raise BadInput(f"{path}: x must have shape (samples, features), got {x.shape}")
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
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise BadInput(f"{path}: {name}{list(place)} is {array[place]}, not a finite number")
    if y.dtype.kind in "ub":
        y = y.astype(np.int64)
    return x.astype(np.float64), y.astype(np.float64) if y.dtype.kind == "f" else y


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and cells of every line that is not blank; all of one width."""
    rows: list[tuple[int, list[str]]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if rows and len(cells) != len(rows[0][1]):
                    raise BadInput(
                        f"{path}: line {reader.line_num} has {len(cells)} columns,"
                        f" the first has {len(rows[0][1])}"
                    )
                rows.append((reader.line_num, [cell.strip() for cell in cells]))
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: is not text in UTF-8 ({error.reason})") from error
    except csv.Error as error:
        raise BadInput(f"{path}: is no readable .csv file ({error})") from error
    if not rows:
        raise BadInput(f"{path}: the file holds no samples")
    if len(rows[0][1]) < 2:
        raise BadInput(f"{path}: needs at least 2 columns, separated by commas, got 1")
    return rows


def _read_csv(path: Path, target: str | None) -> tuple[Array, Array]:
    rows = _rows(path)
    header = rows[0][1]
    column = len(header) - 1
    has_header = not any(_is_number(cell) or not cell for cell in header[:column])
    if target is not None:
        if target not in header:
            raise BadInput(f"{path}: has no column {target!r}; its columns: {', '.join(header)}")
        column, has_header = header.index(target), True
    if has_header:
        rows = rows[1:]
    else:
        header = [f"{place + 1}" for place in range(len(header))]
    if not rows:
        raise BadInput(f"{path}: the file holds a header but no samples")

    x = np.empty((len(rows), len(header) - 1))
    labels = []
    for sample, (line, cells) in enumerate(rows):
        labels.append(cells.pop(column))
        if not labels[-1]:
            raise BadInput(f"{path}: line {line}, column {header[column]!r} is empty")
        for feature, cell in enumerate(cells):
            name = header[feature + (feature >= column)]
            if not cell:
                raise BadInput(f"{path}: line {line}, column {name!r} is empty")
            if not _is_number(cell):
                raise BadInput(f"{path}: line {line}, column {name!r} is no number: {cell[:40]!r}")
            x[sample, feature] = float(cell)
            if not np.isfinite(x[sample, feature]):
                raise BadInput(
                    f"{path}: line {line}, column {name!r} is {cell}, not a finite number"
                )
    return x, _targets(path, header[column], labels, [line for line, _ in rows])


def _targets(path: Path, name: str, labels: list[str], lines: list[int]) -> Array:
    try:
        return np.array([int(label) for label in labels], np.int64)
    except (ValueError, OverflowError):
        pass
    if not all(_is_number(label) for label in labels):
        return np.array(labels)
    y = np.array(labels, np.float64)
    if not np.isfinite(y).all():
        place = int(np.flatnonzero(~np.isfinite(y))[0])
        raise BadInput(
            f"{path}: line {lines[place]}, column {name!r} is {labels[place]}, not a finite number"
        )
    return y
