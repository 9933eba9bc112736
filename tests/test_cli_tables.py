"""Tables as people have them: separators, decimal commas, gzip, parquet, headers, each fault."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from twolayer_kernels.app import delimited
from twolayer_kernels.app.columns import as_numbers, as_text
from twolayer_kernels.app.delimited import Delimited, find_separator
from twolayer_kernels.app.failures import BadInput
from twolayer_kernels.app.tables import open_table, read_table


@pytest.fixture(autouse=True)
def _on_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(content, name="d.csv"):
    path = Path(name)
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    return path


def numbers_of(path):
    table = read_table(path)
    comma = table.source.decimal_comma
    return table.names, [as_numbers(cells, comma).values.tolist() for cells in table.cells.columns]


PLAIN = "size,price\n1.5,2\n2.5,3\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (PLAIN, "d.csv"),
        (PLAIN, "d.csv.gz"),
        (PLAIN, "D.TXT.GZ"),
        (PLAIN.replace(",", "\t"), "d.tsv"),
        (PLAIN.replace(",", "|"), "d.txt"),
        (PLAIN.replace(",", ";"), "d.csv"),
        (PLAIN.replace(",", ";").replace(".", ","), "d.csv"),
        (PLAIN.replace(",", "\t").replace(".", ","), "d.tsv.gz"),
        (PLAIN.replace("\n", "\r\n"), "d.csv"),
        (PLAIN[:-1], "d.csv"),
        ("\ufeff\n" + PLAIN.replace("\n", "\n\n"), "d.csv"),
        (PLAIN.replace("\n", "\n , \n"), "d.csv"),
        (PLAIN.replace(",", ", "), "d.csv"),
        ('"size","price"\n"1.5","2"\n"2.5","3"\n', "d.csv"),
        ('"size", "price"\n"1.5", "2"\n"2.5", "3"\n', "d.csv"),
        ("size;price\n+1,5;2e0\n25,E-1;3\n", "d.csv"),
        ("size;price\n1,50;2,00\n2,50;3\n", "d.csv"),
    ],
    ids=lambda value: value.replace("\n", "/") if isinstance(value, str) else None,
)
def test_the_same_table_however_it_is_written(text, name):
    assert numbers_of(write(text, name)) == (["size", "price"], [[1.5, 2.5], [2.0, 3.0]])


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2,5\n", ";"),
        ("1,5;2,5;0\n3,5;4,5;1\n", ";"),  # a comma cuts it evenly too, into fewer numbers
        ("1,a;b,0\n2,c;d,1\n", ","),  # and here a semicolon does
        ("name,note\nx,one; two\ny,three\n", ","),
        ('name;note\n"a;b;c;d";1\nx;2\n', ";"),
        ("a\tb, c\n1\t2\n", "\t"),
        ("a,b\n1,2\n3\n4,5\n", ","),
        ("a\n1\n", ","),
    ],
)
def test_the_separator_is_found(text, separator):
    assert find_separator(text)[0] == separator


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b\n1,2\n", ["a", "b"]),
        ("a,2020\n1,2\n", ["a", "2020"]),
        ("1,b\n1,2\n", ["1", "2"]),
        ("red,1,x\nblue,2,y\n", ["1", "2", "3"]),
        ("red,True,x\nblue,False,y\n", ["1", "2", "3"]),
        ("red,NA,x\nblue,b,y\n", ["1", "2", "3"]),
        ("color,size\nred,small\n", ["color", "size"]),
        (",a,b\n0,x,1\n1,y,2\n", ["", "a", "b"]),  # as pandas writes its index
        (",red,x\nsmall,blue,y\n", ["1", "2", "3"]),
        ("a,a,b,a\n1,2,3,4\n", ["a", "a.1", "b", "a.2"]),
        ('"two\nlines",b\n1,2\n', ["two\nlines", "b"]),
    ],
)
def test_the_header_is_told_from_samples(text, names):
    source = open_table(write(text))
    assert source.names == names
    rows = sum(batch.num_rows for batch in source.batches())
    assert rows == text.replace("two\n", "").count("\n") - source.has_header


def test_expected_names_make_a_header():
    assert open_table(write("a,b\n"), ["b"]).names == ["a", "b"]
    assert open_table(write("7,8\n1,2\n"), ["8"]).names == ["7", "8"]
    assert open_table(write("7,8\n1,2\n"), ["9"]).names == ["1", "2"]


def test_cells_as_numbers():
    cells = pa.array(["1", "NA", "", "2.5", "four", "1e999", "-inf"])
    found = as_numbers(cells, decimal_comma=False)
    np.testing.assert_array_equal(found.values, [1, np.nan, np.nan, 2.5, np.nan, np.inf, -np.inf])
    assert np.flatnonzero(found.missing).tolist() == [1, 2]
    assert np.flatnonzero(found.wrong).tolist() == [4]
    truths = as_numbers(pa.array(["True", "FALSE", "", "true"]), decimal_comma=False)
    assert truths.truths
    np.testing.assert_array_equal(truths.values, [1, 0, np.nan, 1])
    assert as_numbers(pa.array(["1,5", "2"]), decimal_comma=True).decimal == ","
    assert as_numbers(pa.array(["1,5", "2"]), decimal_comma=False).wrong.tolist() == [True, False]
    grouped = as_numbers(pa.array(["1.234,5", "-1.234.567,0", "5", "7.00"]), decimal_comma=True)
    np.testing.assert_array_equal(grouped.values, [1234.5, -1234567, 5, np.nan])
    assert as_numbers(pa.array(["1,5", "1.5", "2,5"]), decimal_comma=True).wrong.sum() == 1


def test_cells_as_text():
    assert as_text(pa.array(["x", "NA", "", None, "null"])).tolist() == ["x", *[None] * 4]
    assert as_text(pa.array([1, None])).tolist() == ["1", None]


def test_parquet_keeps_its_types():
    day = datetime.date(2024, 5, 1)
    columns = {
        "whole": pa.array([1, None], pa.int16()),
        "part": pa.array([1.5, 2.5], pa.float32()),
        "money": pa.array([1, 2], pa.decimal128(9, 2)),
        "true": [True, None],
        "word": pa.array(["a", "b"]).dictionary_encode(),
        "day": [day, day],
        "none": pa.nulls(2),
        "__index_level_0__": [7, 8],
    }
    parquet.write_table(pa.table(columns), "d.parquet")
    table = read_table(Path("d.parquet"))
    assert table.names == list(columns)[:-1]
    assert table.cells.to_pydict() == {
        "f0": [1, None],
        "f1": [1.5, 2.5],
        "f2": [1.0, 2.0],
        "f3": [True, None],
        "f4": ["a", "b"],
        "f5": ["2024-05-01"] * 2,
        "f6": [None, None],
    }


def test_a_table_larger_than_its_blocks(monkeypatch):
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 4096)
    monkeypatch.setattr(delimited, "_SAMPLE_BYTES", 256)
    lines = [f'{i},"text, {i}\nand more"' for i in range(5000)]
    source = open_table(write("a,b\n" + "\n".join(lines), "d.csv.gz"))
    batches = list(source.batches())
    assert len(batches) > 1
    assert source.done == source.total
    table = pa.Table.from_batches(batches)
    assert table.column(0).to_pylist() == [str(i) for i in range(5000)]
    assert table.column(1)[4999].as_py() == "text, 4999\nand more"
    assert source.place(2) == "line 7"  # where the row ends, as an editor counts


def test_a_row_below_odd_quotes_has_its_number():
    source = open_table(write('a,b\n"1"x,2\n3,4\n'))
    assert sum(batch.num_rows for batch in source.batches()) == 2
    assert source.place(1) == "row 2"


def test_a_wide_first_line():
    names = ",".join(f"column{i}" for i in range(20000))
    values = ",".join("1" for _ in range(20000))
    assert len(read_table(write(f"{names}\n{values}\n")).names) == 20000


GOOD = gzip.compress(b"a,b\n" + b"1,2\n" * 9999, mtime=0)


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        ("", "d.csv", "the file is empty"),
        ("\n \n", "d.tsv", "holds no samples"),
        ("a;b\n", "d.csv", "holds a header but no samples"),
        ("a b\n1 2\n", "d.txt", "at least 2 columns, separated by commas, semicolons, tabs or |"),
        ("a;b\n1;2\n\n3\n", "d.csv", "line 4 has 1 columns, the first has 2"),
        ("a,b\n1,2\n3,4,5\n", "d.csv.gz", "line 3 has 3 columns, the first has 2"),
        ('a,b\n1,"2\n3,4\n5,6\n', "d.csv", "is no readable .csv file (unexpected end of data)"),
        ('1,"2\n3,4\n', "d.csv", "is no readable .csv file (unexpected end of data)"),
        ("a,b\nä,1\n".encode("latin-1"), "d.csv", "is not text in UTF-8"),
        ("a,b\nx,1\n".encode("utf-16"), "d.csv", "is not text in UTF-8"),
        (b"a,b\n" + b"x,1\n" * 20000 + b"\xff,1\n", "d.csv", "is not text in UTF-8"),
        (b"PK\x03\x04\x14\x00\x08\xff", "d.csv", "is not text in UTF-8"),
        (b"PAR1PAR1", "d.parquet", "is no readable .parquet file"),
        (b"PAR1" + bytes(40) + b"PAR1", "d.pq", "is no readable .parquet file"),
    ],
)
def test_a_fault_is_named(content, name, problem):
    path = write(content, name)
    with pytest.raises(BadInput) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{name}: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"a,b\n1,2\n", GOOD[:-20], GOOD[:60], GOOD[:30] + GOOD[40:]],
    ids=["not gzipped", "cut short", "cut early", "a hole"],
)
def test_damaged_gzip(content):
    Path("d.csv.gz").write_bytes(content)
    with pytest.raises(BadInput, match=r"d.csv.gz: is no readable .csv.gz file \("):
        read_table(Path("d.csv.gz"))


def test_parquet_that_is_no_table_of_cells():
    Path("folder.parquet").mkdir()
    with pytest.raises(BadInput, match=r"folder.parquet: Is a directory"):
        open_table(Path("folder.parquet"))
    parquet.write_table(pa.table({"a": [[1], [2]], "b": [1, 2]}), "d.parquet")
    with pytest.raises(BadInput, match=r"d.parquet: column 'a' holds list<.*needs numbers or text"):
        open_table(Path("d.parquet"))


def test_a_file_of_another_kind_is_refused():
    for name in ("d.xlsx", "d", "d.gz", "d.npz.gz", "d.parquet.gz"):
        with pytest.raises(BadInput, match=f"{name}: must be a .csv, .tsv or .txt"):
            open_table(write("a,b\n1,2\n", name))


def test_a_source_says_how_far_it_is():
    source = open_table(write(PLAIN))
    assert isinstance(source, Delimited)
    assert (source.done, source.total) == (0, len(PLAIN))
    list(source.batches())
    assert source.done == source.total
