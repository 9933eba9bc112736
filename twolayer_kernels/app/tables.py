"""A user's table, whole or in batches: text files by their separator, parquet by its types."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from .delimited import SUFFIXES, Delimited, unique
from .failures import BadInput

PARQUET = (".parquet", ".pq")
KINDS = ".csv, .tsv or .txt (.gz too), .parquet or .npz"
_BATCH_ROWS = 2**16


def is_table(path: Path) -> bool:
    """Whether the name is that of a table which this module reads."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        return suffixes[-2:-1] != [] and suffixes[-2] in SUFFIXES
    return suffixes[-1:] != [] and suffixes[-1] in (*SUFFIXES, *PARQUET)


class Parquet:
    """A parquet file; whole numbers, decimals, truth values and text keep their types.

    Dates and times become text as ISO 8601 writes them.

    Raises:
        BadInput: the file is damaged, or a column holds lists, records or bytes.
    """

    decimal_comma = False
    has_header = True

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = parquet.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        schema = self._file.schema_arrow
        # pandas keeps a table's index beside its columns.
        kept = [name for name in schema.names if not name.startswith("__index_level_")]
        self._places = [place for place, name in enumerate(schema.names) if name in kept]
        self.names = unique([schema.names[place].strip() for place in self._places])
        self.total, self.done = self._file.metadata.num_rows, 0
        for place, name in zip(self._places, self.names, strict=True):
            kind = schema.types[place]
            if pa.types.is_nested(kind) or pa.types.is_binary(kind):
                raise BadInput(f"{path}: column {name!r} holds {kind}, needs numbers or text")

    def _unreadable(self, error: Exception) -> BadInput:
        return BadInput(f"{self.path}: is no readable .parquet file ({str(error).splitlines()[0]})")

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows in batches, each column in one of the four types."""
        try:
            for batch in self._file.iter_batches(_BATCH_ROWS):
                columns = [_plain(batch.column(place)) for place in self._places]
                self.done += batch.num_rows
                if columns and batch.num_rows:
                    names = [f"f{place}" for place in range(len(columns))]
                    yield pa.RecordBatch.from_arrays(columns, names)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def place(self, row: int) -> str:
        return f"row {row + 1}"


def _plain(cells: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    kind = cells.type
    if pa.types.is_boolean(kind) or pa.types.is_string(kind):
        return cells
    if kind == pa.uint64() and (pc.max(cells).as_py() or 0) >= 2**63:
        return pc.cast(cells, pa.float64(), safe=False)
    if pa.types.is_integer(kind):
        return pc.cast(cells, pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pc.cast(cells, pa.float64())
    return pc.cast(cells, pa.string())


Source = Delimited | Parquet


def open_table(path: Path, expected: Collection[str] | None = ()) -> Source:
    """The table's names and, by ``batches()``, its rows.

    Args:
        expected: names that make a text table's first line a header where it holds them all;
            ``None``: it is none.

    Raises:
        BadInput: the file cannot be read as such; the message names it and the fault.
    """
    if not is_table(path):
        raise BadInput(f"{path}: must be a {KINDS} file")
    try:
        with path.open("rb") as file:  # the system's faults in the system's words
            if not file.read(1):
                raise BadInput(f"{path}: the file is empty")
        if path.suffix.lower() in PARQUET:
            return Parquet(path)
        return Delimited(path, expected)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Table:
    """All rows of a table; ``cells`` has a column for each of ``names``, by place."""

    source: Source
    names: list[str]
    cells: pa.Table

    @property
    def path(self) -> Path:
        return self.source.path

    def __len__(self) -> int:
        return int(self.cells.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        return self.cells.column(self.names.index(name))

    def refuse(self, row: int, name: str, what: str) -> NoReturn:
        """Raises BadInput for what a cell is."""
        raise BadInput(f"{self.where(row, self.names.index(name))} {what}")

    def where(self, row: int, column: int) -> str:
        """``FILE: line 3, column 'b'``, for messages."""
        return f"{self.path}: {self.source.place(row)}, column {self.names[column]!r}"


def read_table(path: Path, expected: Collection[str] = ()) -> Table:
    """The whole table, which has at least two columns and one row.

    Raises:
        BadInput: as :func:`open_table`.
    """
    source = open_table(path, expected)
    if len(source.names) < 2:
        wanted = ", separated by commas, semicolons, tabs or |" * isinstance(source, Delimited)
        raise BadInput(f"{path}: needs at least 2 columns{wanted}, got {len(source.names)}")
    try:
        batches = list(source.batches())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from error
    if not batches:
        held = "a header but no samples" if source.has_header else "no samples"
        raise BadInput(f"{path}: the file holds {held}")
    return Table(source, source.names, pa.Table.from_batches(batches))


def target_place(table: Table, target: str | None) -> int:
    """The place of the target: the column of this name, or the last one that has a name.

    Raises:
        BadInput: there is no column of this name.
    """
    if target is None:
        return max((place for place, name in enumerate(table.names) if name), default=0)
    if target not in table.names:
        raise BadInput(
            f"{table.path}: has no column {target!r}; its columns: {', '.join(table.names)}"
        )
    return table.names.index(target)
