"""What ``twolayer train`` says of a table's columns, refuses in them, and keeps of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from twolayer_kernels.app import data
from twolayer_kernels.app.columns import as_numbers
from twolayer_kernels.app.failures import BadInput
from twolayer_kernels.app.preparation import Number, Text
from twolayer_kernels.app.tables import read_table

from .commands import one_thread, only_line, run
from .tables import messy_columns, write_table


@pytest.fixture(autouse=True)
def _on_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with one_thread():
        yield


SMALL = ("--hidden", 4, "--epochs", 1, "--batch-size", 64)


def train(name, *arguments, **options):
    return run("train", "--data", name, *SMALL, *arguments, **options)


def test_every_column_is_told(capsys):
    out = train(write_table(messy_columns(0)), capsys=capsys).out
    lines = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line.strip()}
    assert lines["rooms"] == "rooms number 1 scaled"
    assert "number 2 scaled; where missing: the median" in lines["size"]
    assert "truth value 2 False is 0, True is 1; scaled; where missing" in lines["garden"]
    assert lines["void"] == "void left out is empty"
    assert lines["id"].startswith("id left out no value stands in it twice, as 'no. ")
    assert lines["color"].startswith("color text 6 one feature each: a, b, blue")
    assert "…" not in out


def test_numbers_alone_are_not_told(capsys):
    write_table({"a": [1.5, 2, 3, 4, 5, 6], "b": [0, 1, 0, 1, 0, 1]})
    out = train("d.csv", capsys=capsys).out
    assert out.startswith("d.csv: 4 training and 2 test samples, 1 features, 4 hidden, 2 outputs\n")
    assert "taken as" not in out


def test_a_header_that_looks_like_a_row_is_told(capsys):
    rows = "".join(f"{i},{i % 3},{'pq'[i % 2]}\n" for i in range(30))
    Path("d.csv").write_text("2019,2020,label\n" + rows)
    assert "no header: columns are numbered from 1" in train("d.csv", capsys=capsys).out
    out = train("d.csv", "--target", "label", capsys=capsys).out
    assert "no header" not in out
    assert "2 outputs" in out.splitlines()[0]
    Path("d.csv").write_text(
        "2019,2020,price\n" + "".join(f"{i},{i % 3},{i}.5\n" for i in range(30))
    )
    said = only_line(run("train", "--data", "d.csv", status=2, capsys=capsys))
    assert "column '3' is no number: 'price'; if line 1 is a header, --target with a name" in said


def test_labels_are_classes_as_they_are_written(capsys):
    write_table({"a": [*range(12)], "zip": ["01234", "1234", "+7"] * 4})
    train("d.csv", "--save", "m.pt", capsys=capsys)
    run("predict", "m.pt", "d.csv", "--out", "p.csv", "--probabilities", capsys=capsys)
    header = Path("p.csv").read_text().splitlines()[0]
    assert all(f"probability_{label}" in header for label in ("01234", "1234", "+7"))
    train("d.csv", "--regression", capsys=capsys)


def test_whole_numbers_beyond_int64_are_classes(capsys):
    write_table({"a": [*range(8)], "id": [2**63, 2**63 + 1] * 4})
    out = train("d.csv", capsys=capsys).out
    assert "2 outputs" in out.splitlines()[0]


@pytest.mark.parametrize("first", [2**60, 2**63])
def test_whole_numbers_that_are_no_doubles(first, capsys):
    ids = pa.array([first + i for i in range(12)], pa.uint64())
    columns = {"id": ids, "x": [0.5 * i for i in range(12)], "y": ["p", "q"] * 6}
    write_table(columns, "i.parquet")
    out = train("i.parquet", capsys=capsys).out
    assert "2 features" in out.splitlines()[0]


def test_a_value_that_is_called_rare(capsys):
    kinds = [("a rare value", "b", "c", f"u{i}")[i % 4] for i in range(60)]
    write_table({"kind": kinds, "y": ["p", "q", "r"] * 20})
    train("d.csv", "--save", "m.pt", capsys=capsys)
    run("predict", "m.pt", "d.csv", "--out", "p.csv", capsys=capsys)
    assert len(Path("p.csv").read_text().splitlines()) == 61


def test_the_table_is_not_overwritten(capsys):
    write_table({"a": [*range(8)], "y": ["p", "q"] * 4})
    before = Path("d.csv").read_bytes()
    said = only_line(run("train", "--data", "d.csv", "--save", "d.csv", status=2, capsys=capsys))
    assert "would overwrite the table" in said
    assert Path("d.csv").read_bytes() == before
    arguments = ("--out", "o", "--save", "o/train.png")
    said = only_line(run("train", "--data", "d.csv", *arguments, status=2, capsys=capsys))
    assert "is where the picture goes" in said


def test_rows_without_a_target_are_left_out(capsys):
    write_table({"a": [*range(10), 1], "b": ["x", "y"] * 5 + [None]})
    out = train("d.csv", capsys=capsys).out
    assert "8 training and 2 test samples" in out
    assert "1 row has no target: left out" in out


def test_targets(capsys):
    for cells, classes in (
        (["True", "False"] * 10, ["False", "True"]),
        (["x", "y"] * 10, ["x", "y"]),
        ([3, 1] * 10, [1, 3]),
        ([1.5, 2.5] * 10, None),
    ):
        write_table({"a": list(range(20)), "b": cells})
        assert data.from_file(Path("d.csv"), None, 0).classes == classes
    write_table({"a": list(range(20)), "b": [1.5, 2.5] * 10})
    assert data.from_file(Path("d.csv"), None, 0, text=["b"]).classes == ["1.5", "2.5"]


def test_whole_numbers_can_be_quantities(capsys):
    write_table({"a": list(range(20)), "b": [1000 + i for i in range(20)]})
    train("d.csv", "--regression", "--save", "c.pt", capsys=capsys)
    assert data.from_file(Path("d.csv"), None, 0, regression=True).task == "regression"
    rest = ("train", "--data", "d.csv", "--epochs", 2, "--resume", "c.pt")
    assert "test R2" in run(*rest, capsys=capsys).out
    np.savez("d.npz", x=np.ones((20, 1)), y=np.arange(20))
    assert "test R2" in train("d.npz", "--regression", capsys=capsys).out
    write_table({"a": list(range(20)), "b": ["x", "y"] * 10})
    line = only_line(train("d.csv", "--regression", status=2, capsys=capsys))
    assert line == "twolayer: d.csv: --regression needs targets that are numbers, got 'x'"


def test_a_code_can_be_taken_as_text(capsys):
    write_table({"zip": [1000, 2000, 3000, 4000] * 5, "b": [0, 1] * 10})
    found = data.from_file(Path("d.csv"), None, 0, text=["zip"]).preparation
    assert found.columns == [Text("zip", ["1000", "2000", "3000", "4000"], False)]
    assert isinstance(data.from_file(Path("d.csv"), None, 0).preparation.columns[0], Number)


TEN = "".join(f"{i},{i % 3},{i % 2}\n" for i in range(10))


@pytest.mark.parametrize(
    ("text", "arguments", "problem"),
    [
        ("a,b,c\n" + TEN.replace("4,", "four,", 1), (), "line 6, column 'a' is no number: 'four'"),
        ("a,b,c\n" + TEN.replace("4,", "four,", 1), (), "as 9 of 10 are; NA is a missing one"),
        ("a,b,c\n" + TEN.replace("4,", "1e999,", 1), (), "line 6, column 'a' is 1e999, not a fin"),
        ("a,b,c\n" + TEN.replace("4,1,0", "4,1,x"), (), "line 6, column 'c' is no number: 'x'"),
        ("a,b,c\n" + TEN, ("--target", "d"), "has no column 'd'; its columns: a, b, c"),
        ("a,b,c\n" + TEN, ("--text", "d"), "--text: has no column 'd'; its columns: a, b, c"),
        ("a,b\n" + "".join(f"n{i},{i % 2}\n" for i in range(9)), (), "no column is left to learn"),
        ("a,b\n" + ",1\n,0\n" * 5, (), "no column is left to learn"),
        ("a,b\n" + "1,\n" * 9, (), "needs at least 5 samples, got 0"),
        ("a,b\n" + "1,x\n" * 9, (), "at least 2 classes, got 1"),
        ("a,b\n" + "".join(f"1,{i}\n" for i in range(9)), (), "9 classes in 9 samples are"),
        ("a,b\n" + "".join(f"{i}e300,{i % 2}\n" for i in range(9)), (), "too large to scale"),
        ("a;b;c\n" + "1,5;1.234;1\n2,5;2.345;0\n" * 5, (), "column 'b' has a decimal point, and"),
        ("a;b\n" + "1,5;1\n2,5;0\n" * 5 + "3.5;1\n", (), "line 12, column 'a' is 3.5, with anoth"),
        ("a;b\n" + "1.5;1\n2.5;0\n" * 5 + "3,5;1\n", (), "line 12, column 'a' is 3,5, with anoth"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line(text, arguments, problem, capsys):
    Path("d.csv").write_text(text)
    line = only_line(train("d.csv", *arguments, status=2, capsys=capsys))
    assert line.startswith("twolayer: d.csv: ")
    assert problem in line
    assert not Path("out").exists()


def test_text_without_data_is_refused(capsys):
    line = only_line(run("train", "--text", "a", status=2, capsys=capsys))
    assert "--text names a column of the file of --data" in line


def test_text_where_nothing_is_prepared_is_refused(capsys):
    np.savez("d.npz", x=np.ones((20, 1)), y=np.arange(20) % 2)
    line = only_line(train("d.npz", "--text", "a", status=2, capsys=capsys))
    assert line == "twolayer: d.npz: --text names a column of a table; an .npz has its x"
    write_table({"a": [1, 2] * 5, "b": [0, 1] * 5})
    line = only_line(train("d.csv", "--text", "a", "--no-prepare", status=2, capsys=capsys))
    assert "--text needs the columns prepared" in line


def test_resuming_takes_the_preparation_of_the_checkpoint(capsys):
    write_table({"zip": [1000, 2000, 3000] * 8, "a": [*range(23), None], "b": [0, 1] * 12})
    train("d.csv", "--text", "zip", "--save", "c.pt")
    rest = ("train", "--data", "d.csv", "--epochs", 2, "--resume", "c.pt")
    run(*rest, "--save", "rest.pt")
    train("d.csv", "--text", "zip", "--epochs", 2, "--save", "whole.pt")
    whole, resumed = (torch.load(name, weights_only=True) for name in ("whole.pt", "rest.pt"))
    assert whole["preparation"] == resumed["preparation"]
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, resumed["model"][name])
    capsys.readouterr()
    line = only_line(run(*rest, "--no-prepare", status=2, capsys=capsys))
    assert line == "twolayer: c.pt: was trained with --prepare, got --no-prepare"
    line = only_line(run(*rest, "--text", "a", status=2, capsys=capsys))
    assert line == "twolayer: c.pt: was trained with --text zip, got a"


@pytest.mark.parametrize("header", [True, False])
def test_resuming_takes_the_target_of_the_checkpoint(header, capsys):
    write_table({"yes": [0, 1] * 12, "a": list(range(24)), "b": [0.5, 1.5, 2.5] * 8})
    if not header:
        text = Path("d.csv").read_text()
        Path("d.csv").write_text(text.split("\n", 1)[1])
    target = "yes" if header else "1"
    train("d.csv", "--target", target, "--save", "c.pt")
    rest = ("train", "--data", "d.csv", "--epochs", 2, "--resume", "c.pt")
    run(*rest)
    run(*rest, "--target", target)
    capsys.readouterr()
    line = only_line(run(*rest, "--target", "a", status=2, capsys=capsys))
    assert line == f"twolayer: c.pt: was trained with --target {target}, got --target a"


def test_a_prepared_checkpoint_loads_into_plain_torch():
    write_table(messy_columns(0))
    train("d.csv", "--save", "c.pt")
    content = torch.load("c.pt", weights_only=True)
    preparation = json.loads(content["preparation"])
    assert [column["name"] for column in preparation["columns"]][:2] == ["size", "color"]
    assert content["feature_mean"].shape == (content["config"]["in_features"],)
    cells = read_table(Path("d.csv")).column("rooms")
    rooms = torch.tensor(as_numbers(cells, False).values, dtype=torch.float32)
    scaled = (rooms - content["feature_mean"][1]) / content["feature_scale"][1]
    found = data.from_file(Path("d.csv"), None, 0)
    train_part, _ = data._split(None, 200, 0)
    torch.testing.assert_close(found.x_train[:, 1], scaled[train_part])


def test_a_checkpoint_with_a_damaged_preparation(capsys):
    write_table(messy_columns(0))
    train("d.csv", "--save", "c.pt")
    content = torch.load("c.pt", weights_only=True)
    torch.save({**content, "preparation": "{}"}, "c.pt")
    capsys.readouterr()
    arguments = ("--epochs", 2, "--resume", "c.pt")
    line = only_line(train("d.csv", *arguments, status=2, capsys=capsys))
    assert line == "twolayer: c.pt: its preparation is damaged"


def test_refusals_name_the_row():
    write_table({"a": [1, 2, 3, 4, 5, 6], "b": [1, 2] * 3}, "d.parquet")
    table = read_table(Path("d.parquet"))
    with pytest.raises(BadInput, match=r"d.parquet: row 3, column 'b' is odd"):
        table.refuse(2, "b", "is odd")
