"""Users' data files: what is read from them, and the one line that each fault becomes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from twolayer_kernels.app import checkpoint
from twolayer_kernels.app.data import prepare
from twolayer_kernels.app.failures import BadInput
from twolayer_kernels.app.files import Samples, read_samples

from .commands import one_thread, only_line, run


@pytest.fixture(autouse=True)
def _on_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with one_thread():
        yield


def write_csv(text, name="d.csv"):
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return Path(name)


@pytest.mark.parametrize(
    ("text", "target", "x", "y"),
    [
        ("1,2,0\n3,4,1\n", None, [[1, 2], [3, 4]], [0, 1]),
        ("a,b,c\n1,2,0.5\n3,4,1\n", None, [[1, 2], [3, 4]], [0.5, 1.0]),
        ("a,b,c\n1,2,0\n3,4,1\n", "a", [[2, 0], [4, 1]], [1, 3]),
        ("1,cat\n2,dog\n", None, [[1], [2]], ["cat", "dog"]),
        ('\ufeffa, "b"\n\n1, "x, y"\n2,z\n', None, [[1], [2]], ["x, y", "z"]),
        ("7,8,9\n1,2,3\n", "8", [[1, 3]], [2]),
    ],
    ids=["plain", "header and decimals", "target", "text", "quotes, blanks, BOM", "number as name"],
)
def test_csv_files(text, target, x, y):
    samples = read_samples(write_csv(text), target)
    np.testing.assert_array_equal(samples.x, x)
    assert samples.y.tolist() == y
    assert samples.y.dtype.kind == {int: "i", float: "f", str: "U"}[type(y[0])]


def test_npz_files():
    np.savez("d.npz", x=np.eye(3, dtype=np.float16), y=np.array([[1], [0], [1]], np.uint8))
    samples = read_samples(Path("d.npz"), None)
    assert samples.x.dtype == np.float64
    assert samples.y.tolist() == [1, 0, 1]
    assert samples.y.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "the file is empty"),
        ("\n \n", "holds no samples"),
        ("a,b\n", "holds a header but no samples"),
        ("1\n2\n", "at least 2 columns"),
        ("a b\n1 2\n", "at least 2 columns, separated by commas, semicolons, tabs or |"),
        ("1,2,0\n3,1\n", "line 2 has 2 columns, the first has 3"),
        ("1,2,0\n3,,1\n", "line 2, column '2' is empty"),
        ("1,2,0\n3,4,\n", "line 2, column '3' is empty"),
        ("a,b,c\n1,2,0\n3,nan,1\n", "line 3, column 'b' is nan, not a finite number"),
        ("a,b,c\n1,2,0\n3,1e999,1\n", "line 3, column 'b' is 1e999"),
        ("1,2,0\n3,four,1\n", "line 2, column '2' is no number: 'four'"),
        ("1,two,0\n3,4,1\n", "line 1, column '2' is no number: 'two'"),
        ("1,2,0.5\n3,4,nan\n", "line 2, column '3' is nan, not a finite number"),
        (b"\xff\xfe1\x002\x00", "is not text in UTF-8"),
        ('1,"2\n3,4\n', "is no readable .csv file"),
        ("1,2\n" * 4, "at least 5 samples, got 4"),
        ("1,2\n" * 9, "at least 2 classes, got 1"),
        ("".join(f"1,{i}\n" for i in range(9)), "9 classes in 9 samples are too many"),
        ("".join(f"{i}e300,{i % 2}\n" for i in range(9)), "too large to scale"),
    ],
)
def test_bad_csv_files(text, problem, capsys):
    write_csv(text)
    command = ("train", "--data", "d.csv", "--no-prepare")
    line = only_line(run(*command, status=2, capsys=capsys))
    assert line.startswith("twolayer: d.csv: ")
    assert problem in line
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"x": np.ones((6, 2))}, "has no array 'y'; its arrays: x"),
        ({}, "its arrays: none"),
        ({"x": np.ones(6), "y": np.ones(6)}, "x must have shape (samples, features), got (6,)"),
        ({"x": np.ones((6, 0)), "y": np.ones(6)}, "x must have shape"),
        ({"x": np.ones((6, 2)), "y": np.ones(5)}, "x has 6 samples and y 5"),
        ({"x": np.ones((6, 2)), "y": np.ones((6, 2), int)}, "y must have shape"),
        ({"x": np.full((6, 2), "a"), "y": np.ones(6)}, "x must hold numbers"),
        ({"x": np.ones((6, 2)), "y": np.ones(6, complex)}, "y must hold numbers or text"),
        ({"x": np.array([[1.0, np.nan]] * 6), "y": np.ones(6)}, "x[0, 1] is nan"),
        ({"x": np.ones((6, 2)), "y": np.array([1.0, np.inf] * 3)}, "y[1] is inf"),
        ({"x": np.ones((0, 2)), "y": np.ones(0)}, "at least 5 samples, got 0"),
        ({"x": np.array([[None]] * 6), "y": np.ones(6)}, "no readable .npz file of plain arrays"),
    ],
)
def test_bad_npz_files(arrays, problem, capsys):
    np.savez("d.npz", **arrays)
    line = only_line(run("train", "--data", "d.npz", status=2, capsys=capsys))
    assert line.startswith("twolayer: d.npz: ")
    assert problem in line


def test_damaged_npz_files(capsys):
    np.savez_compressed("d.npz", x=np.random.default_rng(0).random((50, 20)), y=np.arange(50) % 2)
    good = Path("d.npz").read_bytes()
    flipped = bytearray(good)
    flipped[300:340] = bytes(40)
    for broken in (b"text", good[:200], good[:-30], bytes(flipped)):
        Path("d.npz").write_bytes(broken)
        line = only_line(run("train", "--data", "d.npz", status=2, capsys=capsys))
        assert line.startswith("twolayer: d.npz: is no readable .npz file")
    np.save("d.npy", np.ones(3))
    Path("d.npy").rename("d.npz")
    assert "single array" in only_line(run("train", "--data", "d.npz", status=2, capsys=capsys))


def test_the_split_keeps_the_shares_of_the_classes():
    labels = np.array([0] * 80 + [1] * 20)
    x = np.arange(100.0)[:, None]
    one, same, other = (prepare(Samples("s", x, labels), seed) for seed in (0, 0, 1))
    assert one.y_test.bincount().tolist() == [16, 4]
    assert one.y_train.bincount().tolist() == [64, 16]
    assert checkpoint.fingerprint(one) == checkpoint.fingerprint(same)
    assert checkpoint.fingerprint(one) != checkpoint.fingerprint(other)
    torch.testing.assert_close(one.x_train.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    raw = torch.cat([one.x_train, one.x_test]) * one.feature_scale + one.feature_mean
    torch.testing.assert_close(raw.sort(0).values, torch.arange(100.0)[:, None])


def test_a_constant_feature_is_left_as_it_is():
    x = np.ones((10, 2))
    x[:, 1] = np.arange(10)
    data = prepare(Samples("s", x, np.arange(10.0)), 0)
    assert data.x_train[:, 0].eq(0).all()
    with pytest.raises(BadInput, match="at least 5"):
        prepare(Samples("s", x[:4], np.arange(4.0)), 0)


def test_a_missing_target_word_is_no_class(capsys):
    write_csv("a,b,y\n" + "".join(f"{i},{i * i},{i % 2}\n" for i in range(20)) + "3,4,NA\n")
    arguments = ("train", "--data", "d.csv", "--no-prepare", "--epochs", 1)
    line = only_line(run(*arguments, status=2, capsys=capsys))
    assert "line 22" in line


def test_numbers_beyond_any_scale_are_one_line(capsys):
    cells = "".join(f"{'1e308' if i % 3 else i},{i},{i % 2}\n" for i in range(60))
    write_csv("a,b,y\n" + cells)
    line = only_line(run("train", "--data", "d.csv", status=2, capsys=capsys))
    assert line.endswith("its values are too large to scale")


def test_a_name_that_nothing_can_show_is_no_failure():
    name = os.fsdecode(b"b\xff$\\frac$.csv")
    write_csv("größe,色,y\n" + "".join(f"{i},{i * i},{i % 2}\n" for i in range(40)), name)
    command = [
        sys.executable,
        "-m",
        "twolayer_kernels.cli",
        "train",
        "--data",
        name,
        "--epochs",
        "1",
    ]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
