"""Columns become features as scikit-learn's own transformers make them, and it is said how."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from twolayer_kernels.app import data
from twolayer_kernels.app.columns import as_numbers
from twolayer_kernels.app.failures import BadInput
from twolayer_kernels.app.preparation import Number, Preparation, Text
from twolayer_kernels.app.tables import read_table

from .commands import one_thread, only_line, run


@pytest.fixture(autouse=True)
def _on_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with one_thread():
        yield


def messy_columns(seed, rows=200):
    """Lists of cells as people's tables hold them, ``None`` where nothing is."""
    random = np.random.default_rng(seed)

    def some(values, missing):
        gone = random.random(rows) < missing
        return [None if g else v for g, v in zip(gone, values, strict=True)]

    colors = random.choice(
        ["red", "blue", "grün", "a, b", 'q"q'], rows, p=[0.5, 0.3, 0.1, 0.05, 0.05]
    )
    return {
        "size": some((random.standard_normal(rows) * 1e3).tolist(), 0.2),
        "color": some(colors.tolist(), 0.1),
        "rooms": random.integers(0, 5, rows).tolist(),
        "garden": some(random.choice([True, False], rows).tolist(), 0.3),
        "id": [f"no. {number}" for number in range(rows)],
        "few": some(random.choice([f"c{i}" for i in range(40)], rows).tolist(), 0.01),
        "void": [None] * rows,
        "price": (random.standard_normal(rows) + 10).tolist(),
    }


def write_table(columns, name="d.csv"):
    if name.endswith(".parquet"):
        parquet.write_table(pa.table(columns), name)
        return Path(name)

    def cell(value):
        quoted = isinstance(value, str) and any(sign in value for sign in ',"')
        return (
            '"' + value.replace('"', '""') + '"' if quoted else "" if value is None else str(value)
        )

    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(cell, row)) for row in rows)]
    Path(name).write_text("\n".join(lines) + "\n")
    return Path(name)


def reference(columns, numbers, texts):
    """scikit-learn's own transformer, not fitted, and what it takes."""
    x = np.empty((len(columns["size"]), len(columns)), object)
    for place, cells in enumerate(columns.values()):
        x[:, place] = cells
    x[:, 3] = [np.nan if value is None else float(value) for value in x[:, 3]]
    x[:, 0] = [np.nan if value is None else value for value in x[:, 0]]
    number_steps = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True), StandardScaler()
    )
    encoder = OneHotEncoder(
        min_frequency=2,
        max_categories=65,
        handle_unknown="infrequent_if_exist",
        sparse_output=False,
    )
    return ColumnTransformer([("numbers", number_steps, numbers), ("texts", encoder, texts)]), x


@pytest.mark.parametrize("name", ["d.csv", "d.parquet"])
@pytest.mark.parametrize("seed", range(3))
def test_features_are_those_of_scikit_learn(seed, name):
    columns = messy_columns(seed)
    table = read_table(write_table(columns, name))
    found = data.prepare_table(table, None, seed)
    train, test = data._split(None, 200, seed)
    transformer, x = reference(columns, [0, 2, 3], [1, 5])
    transformer.fit(x[train])
    for ours, rows in ((found.x_train, train), (found.x_test, test)):
        theirs = transformer.transform(x[rows]).astype(np.float32)
        np.testing.assert_array_equal(ours.numpy(), theirs)
    assert found.in_features == found.preparation.features == theirs.shape[1]
    assert found.preparation.used == ["size", "color", "rooms", "garden", "few"]


def refused(row, name, what):
    raise AssertionError((row, name, what))


def transformed(preparation, columns):
    table = {name: pa.array([*columns[name]]) for name in preparation.used}
    return preparation.transform(table, False, refused)


def test_a_saved_preparation_is_the_fitted_one():
    columns = messy_columns(7)
    fitted = data.prepare_table(read_table(write_table(columns)), None, 0).preparation
    restored = Preparation.from_json(fitted.to_json())
    assert restored == fitted
    other = messy_columns(8)
    other["color"][:3] = ["never seen", "a rare value", None]
    other["few"][:3] = ["never seen", "a rare value", None]
    other["rooms"] = [None, *other["rooms"][1:]]  # none was missing in training
    np.testing.assert_array_equal(transformed(restored, other), transformed(fitted, other))
    transformer, x = reference(columns, [0, 2, 3], [1, 5])
    transformer.fit(x[data._split(None, 200, 0)[0]])
    _, x = reference(other, [0, 2, 3], [1, 5])
    x[0, 2] = np.nan
    theirs = transformer.transform(x).astype(np.float32)
    np.testing.assert_array_equal(transformed(restored, other), theirs)


def test_only_the_training_part_is_learnt_from():
    columns = messy_columns(3)
    _, test = data._split(None, 200, 0)
    first = data.prepare_table(read_table(write_table(columns)), None, 0).preparation
    for row in test:
        columns["size"][row] = 1e9
        columns["color"][row] = "only in the test part"
    second = data.prepare_table(read_table(write_table(columns)), None, 0).preparation
    assert (second.columns, second.mean, second.scale) == (first.columns, first.mean, first.scale)


def test_numbers_alone_stay_as_they_were():
    random = np.random.default_rng(0)
    columns = {name: random.standard_normal(100).tolist() for name in "abcd"}
    write_table(columns)
    one = data.from_file(Path("d.csv"), None, 0)
    other = data.from_file(Path("d.csv"), None, 0, prepared=False)
    torch.testing.assert_close(one.x_train, other.x_train, rtol=1e-6, atol=1e-6)
    assert torch.equal(one.y_train, other.y_train)
    assert other.preparation.is_plain
    assert not one.preparation.is_plain


def test_large_tables_are_made_in_parts(monkeypatch):
    columns = messy_columns(5)
    preparation = data.prepare_table(read_table(write_table(columns)), None, 0).preparation
    whole = transformed(preparation, columns)
    monkeypatch.setattr("twolayer_kernels.app.preparation._CHUNK_ROWS", 7)
    np.testing.assert_array_equal(transformed(preparation, columns), whole)


def test_damaged_preparations_are_refused():
    fitted = data.prepare_table(read_table(write_table(messy_columns(0))), None, 0).preparation
    good = json.loads(fitted.to_json())
    for change in (
        {"format": 2},
        {"mean": good["mean"][1:]},
        {"scale": [0.0] * len(good["scale"])},
        {"mean": ["1"] * len(good["mean"])},
        {"columns": [{"kind": "code", "name": "a"}]},
        {"columns": [{"kind": "text", "name": "a", "categories": [], "rare": False}]},
        {"columns": None},
        {"extra": 1},
        {"target": 3},
    ):
        with pytest.raises(ValueError, match="its preparation"):
            Preparation.from_json(json.dumps({**good, **change}))
    for text in ("", "[]", "{}", "null"):
        with pytest.raises(ValueError, match="its preparation"):
            Preparation.from_json(text)


# What the command says.

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
        ("a;b;c\n" + "1,5;1.234;1\n2,5;2.345;0\n" * 5, (), "column 'a' has decimal commas and col"),
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
