"""Predictions of a kept network: the trained network's own, for any table with its columns."""

from __future__ import annotations

import csv
import gzip
import os
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from sklearn.datasets import load_digits

from twolayer_kernels.app import checkpoint, data, delimited, train
from twolayer_kernels.app.preparation import Preparation
from twolayer_kernels.app.tables import read_table

from .commands import one_thread, only_line, run, train_clouds


@pytest.fixture(autouse=True)
def _on_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with one_thread():
        yield


def houses(rows=120, seed=0):
    """houses.csv: area, color, garden and rooms, some missing, and the price."""
    random = np.random.default_rng(seed)
    lines = ["area,color,garden,rooms,price"]
    for area, color, garden, gap in zip(
        random.uniform(20, 200, rows),
        random.choice(["red", "blue", "green"], rows),
        random.choice([True, False], rows),
        random.random(rows),
        strict=True,
    ):
        rooms = "" if gap < 0.2 else f"{int(area / 30) + 1}"
        price = 1000 * area + 50000 * (color == "red") + 20000 * garden + 3e5
        lines.append(f"{area:.1f},{color},{garden},{rooms},{price:.2f}")
    Path("houses.csv").write_text("\n".join(lines) + "\n")
    return lines


def train_and_save(name="houses.csv", epochs=3, **options):
    """The trained networks, and beside them what ``--save`` writes of them, model.pt."""
    arguments = {"hidden": 16, "batch_size": 16, "lr": 0.01, "seed": 0, "out": Path("out")}
    fields = {**dict.fromkeys(train.Options.__annotations__), **arguments, "data": Path(name)}
    training = train._fresh(train.Options(**{**fields, "epochs": epochs, **options}))
    for _ in training.run(epochs):
        pass
    checkpoint.save(Path("model.pt"), training)
    return training


def predict(table, *arguments, **options):
    return run("predict", "model.pt", table, *arguments, **options)


def predictions(path="predictions.csv"):
    """The columns of the file that was written, by name."""
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def outputs_of(training, table="houses.csv"):
    """What the trained network itself says of a table's rows."""
    cells = read_table(Path(table))
    preparation = training.data.preparation
    used = {name: cells.column(name) for name in preparation.used}
    x = preparation.transform(used, cells.source.decimal_comma, cells.refuse)
    with torch.no_grad():
        return training.fused.model(torch.from_numpy(x))


def test_a_regression_in_the_targets_units_to_the_bit():
    lines = houses()
    training = train_and_save(epochs=80)
    predict("houses.csv")
    found = np.array(predictions()["prediction"], np.float64)
    saved = training.data.preparation
    expected = outputs_of(training).double() * saved.target_scale[0] + saved.target_mean[0]
    np.testing.assert_array_equal(found, expected[:, 0].numpy())
    prices = np.array([float(line.rpartition(",")[2]) for line in lines[1:]])
    assert np.abs(found - prices).mean() < 0.2 * prices.std()


@pytest.mark.parametrize("labels", [("no", "yes"), (3, 7), (False, True)])
def test_classes_by_their_labels_and_probabilities_to_the_bit(labels):
    lines = houses()
    body = [line.rpartition(",")[0] + f",{labels[i % 2]}" for i, line in enumerate(lines[1:])]
    Path("houses.csv").write_text("\n".join([lines[0], *body]) + "\n")
    training = train_and_save()
    predict("houses.csv", "--probabilities")
    found = predictions()
    assert list(found) == ["prediction", *(f"probability_{label}" for label in labels)]
    outputs = outputs_of(training)
    assert found["prediction"] == [str(labels[place]) for place in outputs.argmax(1)]
    shares = np.array([found[f"probability_{label}"] for label in labels], np.float64).T
    np.testing.assert_array_equal(shares, outputs.double().softmax(1).numpy())
    predict("houses.csv", "--out", "deep/er/p.csv")
    assert predictions("deep/er/p.csv") == {"prediction": found["prediction"]}


def test_what_was_trained_is_what_is_kept():
    houses()
    train_arguments = ("--hidden", 8, "--epochs", 2, "--save", "model.pt")
    run("train", "--data", "houses.csv", *train_arguments)
    content = torch.load("model.pt", weights_only=True)
    fitted = data.from_file(Path("houses.csv"), None, 0).preparation
    assert Preparation.from_json(content["preparation"]) == fitted


def test_the_same_rows_however_they_are_written(capsys):
    lines = houses(30)
    train_and_save()
    predict("houses.csv")
    expected = predictions()
    rows = [line.split(",") for line in lines]
    turned = [",".join(["x", *row[-2::-1]]) for row in rows]
    Path("turned.csv").write_text("\n".join(["new" + turned[0][1:], *turned[1:]]) + "\n")
    semicolons = "\n".join(";".join(row[:-1]).replace(".", ",") for row in rows)
    Path("d.csv.gz").write_bytes(gzip.compress(semicolons.encode()))
    columns = {name: list(cells) for name, *cells in zip(*rows, strict=True)}
    columns["area"] = [float(cell) for cell in columns["area"]]
    columns["garden"] = [cell == "True" for cell in columns["garden"]]
    columns["rooms"] = [int(cell) if cell else None for cell in columns["rooms"]]
    parquet.write_table(pa.table(columns), "d.parquet")
    capsys.readouterr()
    for name, unused in (("turned.csv", "new"), ("d.csv.gz", ""), ("d.parquet", "price (the tar")):
        out = predict(name, capsys=capsys).out
        assert predictions() == expected
        assert ("columns not used: " + unused in out) == bool(unused)
        assert "predictions: predictions.csv (30 rows)" in out
    Path("one.csv").write_text("\n".join(lines[:2]))
    predict("one.csv")
    one, whole = (float(found["prediction"][0]) for found in (predictions(), expected))
    assert one == pytest.approx(whole, rel=1e-6)  # few rows have a kernel of their own


def test_what_is_printed(capsys):
    houses()
    train_and_save()
    out = predict("houses.csv", capsys=capsys).out
    assert out.startswith("model.pt: predicts price as houses.csv taught it in 3 epochs; by ")
    assert "100% 120 rows" in out
    assert "note" not in out


def test_unknown_values_are_noted(capsys):
    houses()
    train_and_save()
    header = "area,color,garden,rooms"
    Path("new.csv").write_text(f"{header}\n50,pink,True,1\n60,,NA,\n,red,False,2\n")
    out = predict("new.csv", capsys=capsys).out
    assert "note: color: 2 rows have values not seen in training, as 'pink'" in out
    assert np.isfinite(np.array(predictions()["prediction"], np.float64)).all()


def test_a_large_table_is_read_in_parts(monkeypatch, capsys):
    houses(3000)
    training = train_and_save()
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 4096)
    monkeypatch.setattr(delimited, "_SAMPLE_BYTES", 256)
    predict("houses.csv")
    found = np.array(predictions()["prediction"], np.float64)
    saved = training.data.preparation
    expected = outputs_of(training).double() * saved.target_scale[0] + saved.target_mean[0]
    np.testing.assert_allclose(found, expected[:, 0].numpy(), rtol=1e-6)
    lines = Path("houses.csv").read_text().splitlines()
    Path("bad.csv").write_text("\n".join([*lines[:-1], "much,red,True,2,0"]))
    before = Path("predictions.csv").read_bytes()
    err = predict("bad.csv", status=2, capsys=capsys).err
    assert err == "twolayer: bad.csv: line 3001, column 'area' is no number: 'much'\n"
    assert Path("predictions.csv").read_bytes() == before
    assert not list(Path().glob("*.part"))


def test_a_table_of_nothing_but_text():
    rows = [f"{color},{size},{color == 'red'}" for color in ("red", "blue") for size in "smlsml"]
    Path("d.csv").write_text("color,size,sold\n" + "\n".join(rows) + "\n")
    train_and_save("d.csv", epochs=60)
    predict("d.csv")
    assert predictions()["prediction"] == [row.rpartition(",")[2] for row in rows]


def test_digits_from_an_array(capsys):
    run("train", "--epochs", 3, "--hidden", 32, "--save", "model.pt")
    x, y = load_digits(return_X_y=True)
    np.savez("digits.npz", x=x)
    predict("digits.npz", capsys=capsys)
    found = np.array(predictions()["prediction"], np.int64)
    assert (found == y).mean() > 0.8
    samples = data.digits(0)
    train_part, _ = data._split(y, len(y), 0)
    prepared = samples.preparation.transform_array(x[train_part])
    np.testing.assert_array_equal(prepared, samples.x_train.numpy())
    np.savez("few.npz", x=x[:, :9])
    line = only_line(predict("few.npz", status=2, capsys=capsys))
    assert line == "twolayer: few.npz: x has 9 features, the model needs 64"


def test_tables_without_names_and_without_preparation(capsys):
    rows = [f"{i},{i % 7},{'yes' if i > 20 else 'no'}" for i in range(1, 41)]
    Path("d.csv").write_text("\n".join(rows))
    for prepare in (None, False):
        train_and_save("d.csv", epochs=60, prepare=prepare)
        predict("d.csv")
        expected = predictions()
        Path("new.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows))
        predict("new.csv")
        assert predictions() == expected
    Path("new.csv").write_text("1,2\n3,\n")
    capsys.readouterr()
    line = only_line(predict("new.csv", status=2, capsys=capsys))
    assert line == "twolayer: new.csv: line 2, column '2' is empty"


HEADER = "area,color,garden,rooms\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("area,garden\n1,True\n", "lacks columns 'color', 'rooms', which the model needs; its col"),
        ("area,color,garden\n1,red,True\n", "lacks column 'rooms', which the model needs; its co"),
        ("1,red,True,2\n", "lacks columns 'area', 'color', 'garden', 'rooms', which the model nee"),
        (HEADER + "1,red,True,2\nmuch,red,True,2\n", "line 3, column 'area' is no number: 'much'"),
        (HEADER + "1,red,maybe,2\n", "line 2, column 'garden' is no number: 'maybe'"),
        (
            HEADER.replace(",", ";") + "1,5;red;True;1\n2;red;True;1.500\n",
            "line 3, column 'rooms' has a decimal point, and column 'area' decimal commas",
        ),
        (HEADER + "inf,red,True,2\n", "line 2, column 'area' is inf, not a finite number"),
        (HEADER + "1,red,True,2\n1e300,red,True,2\n", "line 3 has a number too large to scale"),
        (HEADER + "1,red,True,2\n1,red,True\n", "line 3 has 3 columns, the first has 4"),
        (HEADER + '1,"red,True,2\n', "is no readable .csv file (unexpected end of data)"),
        (HEADER, "the file holds no samples"),
        ("", "the file is empty"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(text, problem, capsys):
    houses(20)
    train_and_save(epochs=1)
    Path("new.csv").write_text(text)
    line = only_line(predict("new.csv", "--out", "sub/p.csv", status=2, capsys=capsys))
    assert line.startswith("twolayer: new.csv: ")
    assert problem in line
    assert not Path("sub").exists()


def test_bad_options(capsys):
    houses(20)
    train_and_save(epochs=1)
    Path("folder").mkdir()
    np.savez("x.npz", x=np.ones((2, 4)))
    for arguments, problem in (
        (("nosuch.csv",), "nosuch.csv: No such file"),
        (("folder",), "folder: must be a .csv, .tsv or .txt"),
        (("x.npz",), "x.npz: the model was trained on a table with columns area, color, garden"),
        (("houses.csv", "--probabilities"), "model.pt: is a regression and has no --probabil"),
        (("houses.csv", "--out", "folder"), "folder: --out must be a file, this is a folder"),
        (("houses.csv", "--out", "houses.csv"), "houses.csv: --out would overwrite what is read"),
        (("houses.csv", "--out", "model.pt"), "model.pt: --out would overwrite what is read"),
        (("houses.csv", "--out", "houses.csv/p.csv"), "houses.csv: cannot be made"),
        (("houses.csv", "--backend", "nosuch"), "--backend must be None or one of"),
    ):
        assert problem in only_line(predict(*arguments, status=2, capsys=capsys))


def test_checkpoints_that_cannot_predict(capsys):
    train_clouds("--epochs", 1, "--save", "model.pt")
    good = torch.load("model.pt", weights_only=True)
    capsys.readouterr()
    for content, problem in (
        ([1], "holds a list, needs a checkpoint"),
        ({**good, "preparation": None}, "does not say how its features are made; train it again"),
        ({**good, "preparation": "{"}, "its preparation is damaged"),
        ({**good, "model": {}}, "its network does not fit its preparation"),
        ({**good, "classes": ["a", "b", "c"]}, "its network does not fit its preparation"),
    ):
        torch.save(content, "model.pt")
        line = only_line(predict("clouds.csv", status=2, capsys=capsys))
        assert line.startswith("twolayer: model.pt: ")
        assert problem in line
    line = only_line(run("predict", "nosuch.pt", "clouds.csv", status=2, capsys=capsys))
    assert line == "twolayer: nosuch.pt: No such file or directory"


def test_a_column_that_stands_twice_is_found_again():
    Path("t.csv").write_text("2019,2019,y\n" + "".join(f"{i},{i % 3},{i % 2}\n" for i in range(60)))
    run("train", "--data", "t.csv", "--target", "y", "--epochs", 1, "--save", "m.pt")
    run("predict", "m.pt", "t.csv", "--out", "p.csv")
    assert len(predictions("p.csv")["prediction"]) == 60


def test_without_a_header_a_first_row_of_text_is_a_row():
    rows = [f"{color},{size},{color[0]}\n" for color in ("red", "blue") for size in range(30)]
    Path("t.csv").write_text("".join(rows))
    run("train", "--data", "t.csv", "--epochs", 1, "--save", "m.pt")
    Path("new.csv").write_text("blue,0.0\nred,0.5\n")
    run("predict", "m.pt", "new.csv", "--out", "p.csv")
    assert len(predictions("p.csv")["prediction"]) == 2


@pytest.mark.parametrize("late", [False, True])
def test_spaces_before_quotes_count_wherever_they_stand(late, capsys):
    """Beyond what the reader looks at to find the separator, too."""
    plain = [f"{i}, {'red' if i % 2 else 'blue'}, {'p' if i % 2 else 'n'}\n" for i in range(9000)]
    quoted = ['1, "red, dark", p\n', '2, "blue", n\n'] * 5
    lines = [*plain, *quoted] if late else [*quoted, *plain]
    Path("t.csv").write_text("a, c, y\n" + "".join(lines))
    found = read_table(Path("t.csv"))
    assert set(found.column("c").to_pylist()) == {"red", "blue", "red, dark"}


@pytest.mark.parametrize("classes", ["np", ["a", "a"], ["a", None], [["a"], ["b"]], [1, "b"]])
def test_classes_that_are_none_are_refused(classes, capsys):
    train_clouds("--epochs", 1, "--save", "c.pt")
    torch.save({**torch.load("c.pt", weights_only=True), "classes": classes}, "c.pt")
    capsys.readouterr()
    line = only_line(run("predict", "c.pt", "clouds.csv", status=2, capsys=capsys))
    assert line == "twolayer: c.pt: is no checkpoint of --save: its 'classes' are broken"


def test_what_is_no_file_is_written_into_and_links_stay():
    train_clouds("--epochs", 1, "--save", "c.pt")
    run("predict", "c.pt", "clouds.csv", "--out", "p.csv")
    Path("link.csv").symlink_to("kept.csv")
    Path("kept.csv").write_text("before")
    run("predict", "c.pt", "clouds.csv", "--out", "link.csv")
    assert Path("link.csv").is_symlink()
    assert Path("kept.csv").read_text() == Path("p.csv").read_text()
    os.mkfifo("pipe")
    seen = []
    reader = threading.Thread(target=lambda: seen.append(Path("pipe").read_text()))
    reader.start()
    run("predict", "c.pt", "clouds.csv", "--out", "pipe")
    reader.join()
    assert Path("pipe").is_fifo()
    assert seen == [Path("p.csv").read_text()]
