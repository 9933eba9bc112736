"""The command line: training jobs, users' files, checkpoints, bad input, examples."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from twolayer_kernels import TwoLayerNet, cli
from twolayer_kernels import numpy as fused_numpy
from twolayer_kernels.app import checkpoint, train
from twolayer_kernels.app.data import prepare
from twolayer_kernels.app.failures import BadInput
from twolayer_kernels.app.files import Samples, read_samples
from twolayer_kernels.app.timing import Stopwatch, blocks

EXAMPLES = Path(__file__).parent.parent / "examples"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _one_thread(tmp_path, monkeypatch):
    """One thread, in a folder of the test's own; a command's --threads is undone."""
    before = torch.get_num_threads(), fused_numpy.get_num_threads()
    monkeypatch.chdir(tmp_path)
    with threadpool_limits(1, user_api="blas"):
        torch.set_num_threads(1)
        fused_numpy.set_num_threads(1)
        yield
    torch.set_num_threads(before[0])
    fused_numpy.set_num_threads(before[1])


@pytest.fixture
def csv_file(tmp_path):
    """Two clouds of points that a line parts: 60 samples, 3 features, classes "no" and "yes"."""
    random = np.random.default_rng(0)
    x = random.standard_normal((60, 3))
    lines = [f"{a},{b},{c},{'yes' if a + b > 0 else 'no'}" for a, b, c in x]
    path = tmp_path / "clouds.csv"
    path.write_text("a,b,c,label\n" + "\n".join(lines) + "\n")
    return path


def run(*arguments, status=0, capsys=None):
    assert cli.main([str(argument) for argument in arguments]) == status, (
        capsys.readouterr() if capsys else arguments
    )
    return capsys.readouterr() if capsys else None


def train_clouds(csv_file, *arguments, **options):
    small = ("--hidden", "8", "--batch-size", "16")
    return run("train", "--data", csv_file, *small, *arguments, **options)


def only_line(streams):
    """The single line that a failed command prints, on stderr alone."""
    assert streams.out == ""
    assert "Traceback" not in streams.err
    (line,) = streams.err.splitlines()
    assert line.startswith("twolayer: ")
    return line


def in_a_fresh_process(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1", "PATH": ""},
    )


# Help and info.


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from twolayer_kernels.cli import main; status = main(['train', '--help']);"
        "print({'torch', 'numpy', 'matplotlib', 'sklearn'} & sys.modules.keys(), status)"
    )
    done = in_a_fresh_process("-c", code)
    assert "--resume" in done.stdout
    assert done.stdout.splitlines()[-1] == "set() 0"


def test_without_a_command_the_help_is_shown(capsys):
    assert cli.main([]) in (0, 2)  # click's choice, by its version
    streams = capsys.readouterr()
    for command in ("train", "ladder", "info"):
        assert command in streams.out + streams.err


def test_an_unknown_command_is_one_line(capsys):
    assert "nosuch" in only_line(run("nosuch", status=2, capsys=capsys))


def test_info_names_versions_kernels_and_explanations(capsys):
    out = run("info", capsys=capsys).out
    for word in ("twolayer_kernels", torch.__version__, "instruction set", "cpu[", "cpu bfloat16"):
        assert word in out


def test_info_where_the_kernels_are_missing(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "twolayer_kernels._cpu", None)
    assert "not available" in run("info", capsys=capsys).out


# The jobs.


def test_digits_and_regression(tmp_path, capsys):
    out = run("train", "--epochs", 12, "--hidden", 64, "--out", "pictures", capsys=capsys).out
    assert "1438 training and 359 test samples, 64 features, 64 hidden, 10 outputs" in out
    accuracies = [float(found) for found in re.findall(r"test accuracy (\d\d\.\d+)%", out)]
    assert len(accuracies) == 3  # the bar's, plain torch's, the fused network's
    assert min(accuracies) > 92
    assert "training R2 1.0000" in out
    assert "picture: pictures/train.png" in out
    assert (tmp_path / "pictures" / "train.png").read_bytes().startswith(PNG)
    assert "…" not in out


def test_the_two_networks_start_alike_and_stay_together(csv_file):
    options = train.Options(csv_file, None, 8, 4, 16, None, 0, None, None, Path(), None, None)
    training = train._fresh(options)
    plain, fused = training.plain, training.fused
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, fused.model.state_dict()[name])
    for _ in training.run(4):
        pass
    assert len(plain.losses) == len(fused.losses) == 4
    assert fused.losses[-1] < fused.losses[0]
    np.testing.assert_allclose(plain.losses, fused.losses, rtol=1e-4)
    assert plain.stopwatch.median() > 0


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_backend_can_be_named(csv_file, backend, capsys):
    out = train_clouds(csv_file, "--epochs", 1, "--backend", backend, capsys=capsys).out
    assert f"fused by {backend}" in out


def test_a_users_regression(tmp_path, capsys):
    random = np.random.default_rng(0)
    x = random.standard_normal((200, 4))
    y = np.stack([np.abs(x[:, 0]), 5 * x[:, 1] + 100], 1)
    np.savez(tmp_path / "[curve].npz", x=x, y=y)
    arguments = ("--hidden", 32, "--epochs", 120, "--lr", 0.01, "--threads", 1)
    out = run("train", "--data", "[curve].npz", *arguments, capsys=capsys).out
    scores = [float(found) for found in re.findall(r"test R2 (\d\.\d+)", out)]
    assert min(scores) > 0.9
    assert "[curve].npz" in out
    assert "accuracy" not in out


def test_a_training_that_diverges_says_so(csv_file, capsys):
    options = ("--epochs", 30, "--lr", 1e30)
    streams = train_clouds(csv_file, *options, "--save", "c.pt", status=1, capsys=capsys)
    assert re.search(r"loss is (nan|inf) at epoch \d+; try a smaller --lr than 1e\+30", streams.err)
    assert len(streams.err.splitlines()) == 1


def test_blocks_and_stopwatch():
    assert list(blocks(250, 100)) == [100, 100, 50]
    watch = Stopwatch()
    assert np.isnan(watch.median())
    watch.add_block([100.0] + [1.0] * 4)  # the first fifth does not count
    assert watch.median() == 1.0


# Checkpoints.


def equal_bits(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            equal_bits(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            equal_bits(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_resumed_training_has_the_bits_of_an_unbroken_one():
    small = ("--hidden", 32, "--batch-size", 100)
    run("train", *small, "--epochs", 6, "--seed", 5, "--save", "whole.pt")
    run("train", *small, "--epochs", 3, "--seed", 5, "--save", "half.pt")
    run("train", "--epochs", 6, "--resume", "half.pt", "--save", "rest.pt")
    whole, half, rest = (
        torch.load(name, weights_only=True) for name in ("whole.pt", "half.pt", "rest.pt")
    )
    equal_bits(whole, rest)
    assert len(rest["losses"]) == rest["epoch"] == 6
    assert rest["step"] == 6 * 15
    assert half["epoch"] == 3
    assert not torch.equal(half["model"]["linear1.weight"], whole["model"]["linear1.weight"])


def test_a_checkpoint_loads_into_plain_torch(csv_file, capsys):
    out = train_clouds(csv_file, "--epochs", 60, "--save", "deep/er/c.pt", capsys=capsys).out
    assert "checkpoint: deep/er/c.pt" in out
    content = torch.load("deep/er/c.pt", weights_only=True)
    model = TwoLayerNet(3, 8, 2)
    model.load_state_dict(content["model"])
    samples = read_samples(csv_file, None)
    x = torch.tensor(samples.x, dtype=torch.float32)
    x = (x - content["feature_mean"]) / content["feature_scale"]
    labels = np.array(content["classes"])[model(x).argmax(1).numpy()]
    assert (labels == samples.y).mean() > 0.9
    assert list(Path("deep/er").iterdir()) == [Path("deep/er/c.pt")]  # no unfinished file


def test_resuming_on_other_threads_is_noted(csv_file, capsys):
    train_clouds(csv_file, "--epochs", 1, "--save", "c.pt")
    out = train_clouds(csv_file, "--epochs", 2, "--resume", "c.pt", capsys=capsys).out
    assert "same bits" not in out
    arguments = ("--epochs", 2, "--resume", "c.pt", "--threads", 2)
    assert "the same bits" in train_clouds(csv_file, *arguments, capsys=capsys).out


def test_a_failed_save_leaves_the_old_file(csv_file, monkeypatch):
    train_clouds(csv_file, "--epochs", 1, "--save", "c.pt")
    before = Path("c.pt").read_bytes()

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    train_clouds(csv_file, "--epochs", 1, "--save", "c.pt", status=2)
    assert Path("c.pt").read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["c.pt", "clouds.csv", "out"]


@pytest.fixture
def saved(csv_file):
    """The content of a good checkpoint, and a way to write it changed."""
    train_clouds(csv_file, "--epochs", 1, "--save", "c.pt")
    content = torch.load("c.pt", weights_only=True)

    def write(**changes):
        torch.save({**content, **changes}, "c.pt")

    return content, write


def resume_problem(csv_file, capsys, *arguments):
    capsys.readouterr()
    given = ("--data", csv_file, "--epochs", 2, "--resume", "c.pt")
    return only_line(run("train", *given, *arguments, status=2, capsys=capsys))


def test_corrupt_checkpoints(saved, csv_file, capsys):
    good = Path("c.pt").read_bytes()
    for broken in (b"", b"no checkpoint", good[: len(good) // 2], good[:-100]):
        Path("c.pt").write_bytes(broken)
        assert "c.pt: is no readable torch checkpoint" in resume_problem(csv_file, capsys)
    torch.save([1, 2], "c.pt")
    assert "c.pt: holds a list" in resume_problem(csv_file, capsys)
    torch.save({"model": {}}, "c.pt")
    assert "its 'format' is missing" in resume_problem(csv_file, capsys)
    Path("c.pt").unlink()
    assert "c.pt: No such file" in resume_problem(csv_file, capsys)


def test_checkpoints_that_do_not_fit(saved, csv_file, capsys):
    content, write = saved
    for changes, problem in (
        ({"format": 99}, "has format 99, this version reads 1"),
        ({"config": {**content["config"], "lr": -1.0}}, "its config has no usable lr"),
        ({"config": {**content["config"], "hidden_features": 9}}, "of shape (9, 3), got (8, 3)"),
        ({"config": {**content["config"], "in_features": 9}}, "on data with 9 features"),
        ({"model": {}}, "model needs linear1.weight of shape (8, 3), got nothing"),
        ({"optimizer": {"state": {}, "param_groups": []}}, "its state does not fit"),
        ({"rng": torch.zeros(3)}, "its state does not fit"),
        ({"epoch": 2}, "has 2 epochs already"),
    ):
        write(**changes)
        line = resume_problem(csv_file, capsys)
        assert line.startswith("twolayer: c.pt: ")
        assert problem in line


def test_a_checkpoint_of_other_data_or_options(saved, csv_file, capsys):
    assert "was trained with --hidden 8, got --hidden 9" in resume_problem(
        csv_file, capsys, "--hidden", 9
    )
    arguments = ("train", "--epochs", 2, "--resume", "c.pt")
    line = only_line(run(*arguments, status=2, capsys=capsys))
    assert "clouds.csv; name that file with --data" in line
    text = csv_file.read_text()
    csv_file.write_text(text.replace("a,b,c,label", "a,b,c,label\n0,0,0,no", 1))
    assert "was trained on other samples" in resume_problem(csv_file, capsys)
    csv_file.write_text(re.sub(r"^[^,]*,", "", text, flags=re.MULTILINE))
    assert "on data with 3 features" in resume_problem(csv_file, capsys)


# Users' files.


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
        ("a;b\n1;2\n", "at least 2 columns, separated by commas"),
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
    line = only_line(run("train", "--data", "d.csv", status=2, capsys=capsys))
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


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--data", "nosuch.csv"], "nosuch.csv: No such file"),
        (["--data", "folder.csv"], "folder.csv: Is a directory"),
        (["--data", "d.xlsx"], "d.xlsx: must be a .npz or .csv file"),
        (["--data", "clouds.csv", "--target", "z"], "no column 'z'; its columns: a, b, c, label"),
        (["--data", "d.npz", "--target", "z"], "d.npz: --target names a column of a .csv"),
        (["--target", "z"], "--target names a column of the file of --data"),
        (["--out", "clouds.csv"], "clouds.csv: --out must be a folder"),
        (["--out", "clouds.csv/out"], "clouds.csv/out: cannot be made"),
        (["--save", "folder.csv"], "folder.csv: --save must be a file"),
        (["--lr", "0"], "--lr must be a number above 0"),
        (["--lr", "nan"], "--lr must be a number above 0"),
        (["--hidden", "0"], "'--hidden'"),
        (["--epochs", "x"], "'--epochs'"),
        (["--batch-size", "-1"], "'--batch-size'"),
        (["--backend", "nosuch"], "--backend must be None or one of"),
        (["--nosuch"], "--nosuch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options(arguments, problem, csv_file, capsys):
    Path("folder.csv").mkdir()
    assert problem in only_line(run("train", *arguments, status=2, capsys=capsys))
    assert not Path("out").exists()


@pytest.mark.parametrize("package", ["sklearn", "matplotlib", "rich"])
def test_a_missing_package_of_the_extra_is_named(package, monkeypatch, capsys):
    for name in list(sys.modules):
        if name.partition(".")[0] == package or name.startswith("twolayer_kernels.app"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    line = only_line(run("train", "--epochs", 1, status=2, capsys=capsys))
    assert line == f"twolayer: needs {package}: pip install 'twolayer_kernels[cli]'"


def test_missing_typer_is_named():
    code = "import sys; sys.modules['typer'] = None; from twolayer_kernels.cli import main"
    done = in_a_fresh_process("-c", f"{code}; sys.exit(main([]))")
    assert done.returncode == 2
    assert done.stderr == "twolayer: needs typer: pip install 'twolayer_kernels[cli]'\n"


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


# Examples.


def test_examples_run():
    for name, last in (("quick_start.py", 1e-5), ("numpy_only.py", 1e-2)):
        done = in_a_fresh_process("-W", "error", EXAMPLES / name)
        assert done.returncode == 0, done.stderr
        first, *_, end = re.findall(r"loss (\S+)", done.stdout)
        assert float(end) < last < float(first)


def test_the_example_reads_a_checkpoint_of_the_digits():
    run("train", "--epochs", 5, "--hidden", 64, "--save", "digits.pt")
    done = in_a_fresh_process("-W", "error", EXAMPLES / "load_checkpoint.py", "digits.pt")
    assert done.returncode == 0, done.stderr
    right = re.fullmatch(r"(\d+) of 1797 digits are read right after 5 epochs\n", done.stdout)
    assert right is not None
    assert int(right[1]) > 1600


def test_every_example_is_tested():
    text = Path(__file__).read_text()
    assert all(path.name in text for path in EXAMPLES.glob("*.py"))
