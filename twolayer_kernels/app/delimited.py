"""Text tables, plain or gzipped: which separator, which names, and the cells as batches of text.

pyarrow parses the cells. What it leaves open is decided here on the file's
beginning: the separator is the one that cuts every line into the same number of
cells; the first line is the header unless it holds a value among its features.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from .columns import is_value
from .failures import BadInput

SUFFIXES = (".csv", ".tsv", ".txt")
# Where two cut a file equally well, the rarer character in running text is the separator.
SEPARATORS = ("\t", ";", "|", ",")
_SAMPLE_BYTES = 2**16
_BLOCK_BYTES = 2**20
_LONGEST_SPACE = 2**8
csv.field_size_limit(2**31 - 1)  # a cell is as long as it is

Rows = list[list[str]]


def _parse(text: str, separator: str) -> Rows:
    """The rows that are not blank; those before the fault, where a quote stays open."""
    rows: Rows = []
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append([cell.strip() for cell in cells])
    except csv.Error:
        pass
    return rows


def find_separator(text: str) -> tuple[str, Rows]:
    """The separator of a table's beginning, which ends with a whole line, and the rows it makes.

    It makes the most rows as wide as most are; then the most cells numbers, which tells
    ``1,5;2,5`` with decimal commas from a comma's three columns.
    """
    best = (0.0, 0.0)
    chosen, chosen_rows = ",", _parse(text, ",")
    for separator in SEPARATORS:
        rows = _parse(text, separator)
        if not rows:
            continue
        width, count = Counter(map(len, rows)).most_common(1)[0]
        cells = [cell for row in rows for cell in row]
        values = sum(is_value(cell, comma=separator != ",") for cell in cells) / len(cells)
        rank = (count / len(rows), values)
        if max(width, len(rows[0])) > 1 and rank > best:
            best, chosen, chosen_rows = rank, separator, rows
    return chosen, chosen_rows


def _has_header(rows: Rows, separator: str) -> bool:
    """Whether the first row names the columns; the last one, mostly the target, is not asked."""
    comma = separator != ","
    first = rows[0][:-1] or rows[0]
    if any(is_value(cell, comma) for cell in first):
        return False
    if all(first):
        return True
    # A cell is empty: a column without a name, or a missing value. Numbers below names tell.
    below = [row for row in rows[1:] if len(row) == len(rows[0])]
    return any(
        name and below and all(is_value(row[place], comma) or not row[place] for row in below)
        for place, name in enumerate(rows[0])
    )


def unique(names: list[str]) -> list[str]:
    """A name that stands twice gets a number the second time: a, a.1."""
    found: list[str] = []
    for name in names:
        candidate, number = name, 0
        while candidate and candidate in found:
            number += 1
            candidate = f"{name}.{number}"
        found.append(candidate)
    return found


class Delimited:
    """A text table; ``names`` are those of its header, or numbers from 1.

    Args:
        expected: names that make the first line a header where it holds all of them; ``None``: it
            is none.

    Raises:
        BadInput: the file is no such table.
    """

    def __init__(self, path: Path, expected: Collection[str] | None = ()) -> None:
        self.path = path
        self.total = path.stat().st_size
        text = self._beginning()
        self.separator, rows = find_separator(text)
        if not rows or len(rows[0]) == 1:  # nothing cuts it: is it because a quote stays open?
            self._check_lines(0)
        if not rows:
            raise BadInput(f"{path}: the file holds no samples")
        self.has_header = expected is not None and (
            (bool(expected) and set(expected) <= set(unique(rows[0])))
            or _has_header(rows, self.separator)
        )
        if self.has_header:
            self.names = unique(rows[0])
        else:
            self.names = [f"{number + 1}" for number in range(len(rows[0]))]
        self._spaced = self._has_spaced_quotes()
        self._block_bytes = max(_BLOCK_BYTES, 8 * len(text))
        self.decimal_comma = self.separator != ","
        self.done = 0

    def _unreadable(self, reason: object) -> BadInput:
        kind = "".join(self.path.suffixes[-2:] if self.path.suffix == ".gz" else [self.path.suffix])
        return BadInput(f"{self.path}: is no readable {kind} file ({reason})")

    def _opened(self) -> tuple[IO[bytes], IO[bytes]]:
        """The file, and its text's bytes: those of the gzip file where it is one."""
        file = self.path.open("rb")
        return file, gzip.open(file) if self.path.suffix.lower() == ".gz" else file  # type: ignore[return-value]

    def _beginning(self) -> str:
        """At least two whole lines, or all there is."""
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        text, wanted, chunk = "", _SAMPLE_BYTES, b" "
        file, content = self._opened()
        with file, content:
            try:
                while chunk and (len(text) < wanted or text.count("\n") < 3):
                    chunk = content.read(_SAMPLE_BYTES)
                    text += decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise BadInput(f"{self.path}: is not text in UTF-8 ({error.reason})") from error
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise self._unreadable(error) from error
        return text[: text.rfind("\n") + 1] if chunk else text

    def _has_spaced_quotes(self) -> bool:
        """Whether spaces stand before a quote that opens a cell, anywhere in the file."""
        mark = re.escape(self.separator).encode()
        opening = re.compile(mark + rb' +"(?=[^"\r\n' + mark + rb"])")
        file, content = self._opened()
        with file, content:
            rest = b""
            with suppress(gzip.BadGzipFile, EOFError, zlib.error):  # said where rows are read
                while chunk := content.read(_BLOCK_BYTES):
                    if b' "' in (block := rest + chunk) and opening.search(block):
                        return True
                    rest = block[-_LONGEST_SPACE:]
        return False

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows below the header as trimmed text, in batches; blank lines are left out.

        Raises:
            BadInput: the file is damaged, or a line has more or fewer cells than the first.
        """
        width, header = len(self.names), self.has_header
        file, content = self._opened()
        with file, content:
            try:
                reader = arrow_csv.open_csv(
                    self._without_spaces() if self._spaced else content,
                    arrow_csv.ReadOptions(
                        autogenerate_column_names=True,
                        block_size=self._block_bytes,
                        use_threads=False,
                    ),
                    arrow_csv.ParseOptions(
                        delimiter=self.separator,
                        newlines_in_values=True,
                        invalid_row_handler=lambda row: "error" if row.text.strip() else "skip",
                    ),
                    arrow_csv.ConvertOptions(
                        column_types={f"f{place}": pa.string() for place in range(width)},
                        strings_can_be_null=False,
                    ),
                )
                last = None
                for batch in reader:
                    rows = _trimmed(batch, self.names)
                    rows = rows.slice(1) if header and rows.num_rows else rows
                    header = header and not batch.num_rows
                    self.done = file.tell()
                    if rows.num_rows:
                        last = rows
                        yield rows
                if last is not None and any("\n" in cells[-1].as_py() for cells in last.columns):
                    self._check_lines(width)
            except (gzip.BadGzipFile, EOFError, zlib.error, csv.Error) as error:
                raise self._unreadable(error) from error
            except pa.ArrowInvalid as error:
                self._check_lines(width)
                if "UTF8" in str(error) or "utf" in str(error).lower():
                    raise BadInput(f"{self.path}: is not text in UTF-8") from error
                raise self._unreadable(str(error).splitlines()[0]) from error

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of each row that is not blank, the header included."""
        file, content = self._opened()
        with file, content:
            text = io.TextIOWrapper(content, "utf-8-sig", errors="replace", newline="")
            reader = csv.reader(text, delimiter=self.separator, skipinitialspace=True, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells

    def _check_lines(self, width: int) -> None:
        """Names the first line of another width, or the quote that stays open.

        By Python's reader: pyarrow neither counts lines nor minds an open quote.
        """
        try:
            for line, cells in self._lines():
                if width and len(cells) != width:
                    raise BadInput(
                        f"{self.path}: line {line} has {len(cells)} columns, the first has {width}"
                    )
        except csv.Error as error:
            raise self._unreadable(error) from error

    def place(self, row: int) -> str:
        """Where an editor finds this row below the header; its number where quotes are odd."""
        with suppress(csv.Error):
            for number, (line, _) in enumerate(self._lines()):
                if number == row + self.has_header:
                    return f"line {line}"
        return f"row {row + 1}"

    def _without_spaces(self) -> IO[bytes]:
        """The table without the spaces before quotes, which pyarrow takes for the cell's own."""
        tight = io.StringIO(newline="")
        writer = csv.writer(tight, delimiter=self.separator)
        writer.writerows(cells for _, cells in self._lines())
        return io.BytesIO(tight.getvalue().encode())


def _trimmed(batch: pa.RecordBatch, names: list[str]) -> pa.RecordBatch:
    """The batch under these names, its cells without spaces around them, without blank rows."""
    columns = [pc.utf8_trim_whitespace(cells) for cells in batch.columns]
    blank = pc.equal(columns[0], "")
    for cells in columns[1:]:
        if not pc.any(blank).as_py():
            break
        blank = pc.and_(blank, pc.equal(cells, ""))
    rows = pa.RecordBatch.from_arrays(columns, [f"f{place}" for place in range(len(names))])
    return rows.filter(pc.invert(blank)) if pc.any(blank).as_py() else rows
