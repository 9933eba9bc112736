"""The command line: help, info, the training jobs, bad options, missing packages, examples."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from twolayer_kernels import cli
from twolayer_kernels.app import info as app_info
from twolayer_kernels.app import train
from twolayer_kernels.app.timing import Stopwatch, blocks

from .commands import (
    EXAMPLES,
    in_a_fresh_process,
    one_thread,
    only_line,
    run,
    train_clouds,
    write_clouds,
)

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _on_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with one_thread():
        yield


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


def test_ctrl_c_is_said_and_ends_with_one(capsys, monkeypatch):
    def stop(console):
        raise KeyboardInterrupt

    monkeypatch.setattr(app_info, "show", stop)
    assert only_line(run("info", status=1, capsys=capsys)) == "twolayer: stopped"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_device_is_said():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "twolayer_kernels.cli", "info"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "twolayer: standard output: No space left on device\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which no file can be made")
@pytest.mark.parametrize("option", [("--out", "/proc"), ("--save", "/proc/c.pt")])
def test_what_cannot_be_written_is_said_before_the_work(option, capsys, monkeypatch):
    monkeypatch.setattr(train, "_show_progress", lambda *arguments: pytest.fail("was trained"))
    line = only_line(run("train", *option, status=2, capsys=capsys))
    assert "cannot be written" in line


# The jobs.


def test_digits_and_regression(tmp_path, capsys):
    out = run("train", "--epochs", 12, "--hidden", 64, "--out", "pictures", capsys=capsys).out
    assert "1438 training and 359 test samples, 64 features, 64 hidden, 10 outputs" in out
    accuracies = [float(found) for found in re.findall(r"test accuracy (\d\d\.\d+)%", out)]
    assert len(accuracies) == 4  # the bar's, plain torch's, the fused network's, that of fit
    assert min(accuracies) > 92
    assert out.count("training R2 1.0000") == 4
    assert len(re.findall(r"^ +fit .* \d+\.\d\dx$", out, re.MULTILINE)) == 2
    assert "picture: pictures/train.png" in out
    assert (tmp_path / "pictures" / "train.png").read_bytes().startswith(PNG)
    assert "…" not in out


@pytest.mark.parametrize("batch_size", [16, 64], ids=["batches", "all samples at once"])
def test_the_networks_start_alike_and_stay_together(batch_size):
    options = train.Options(
        write_clouds(), None, 8, 60, batch_size, None, 0, None, None, Path(), None, None
    )
    training = train._fresh(options)
    plain = training.plain
    for side in (training.fused, training.fitted):
        for name, tensor in plain.model.state_dict().items():
            assert torch.equal(tensor, side.model.state_dict()[name])
    rounds = list(training.run(60))
    assert len(rounds) > 1
    for side in (training.fused, training.fitted):
        assert len(plain.losses) == len(side.losses) == 60
        assert side.losses[-1] < side.losses[0]
        np.testing.assert_allclose(plain.losses, side.losses, rtol=1e-4)
        assert side.stopwatch.median() > 0
    assert plain.stopwatch.median() > 0


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_backend_can_be_named(backend, capsys):
    out = train_clouds("--epochs", 1, "--backend", backend, capsys=capsys).out
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


def test_a_training_that_diverges_says_so(capsys):
    options = ("--epochs", 30, "--lr", 1e30)
    streams = train_clouds(*options, "--save", "c.pt", status=1, capsys=capsys)
    assert re.search(r"loss is (nan|inf) at epoch \d+; try a smaller --lr than 1e\+30", streams.err)
    assert len(streams.err.splitlines()) == 1


def test_blocks_and_stopwatch():
    assert list(blocks(250, 100)) == [100, 100, 50]
    watch = Stopwatch()
    assert np.isnan(watch.median())
    watch.add_block([100.0] + [1.0] * 4)  # the first fifth does not count
    assert watch.median() == 1.0
    for _ in range(5):
        watch.add_run(8.0, 4)
    assert watch.median() == 2.0


# Bad options.


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--data", "nosuch.csv"], "nosuch.csv: No such file"),
        (["--data", "folder.csv"], "folder.csv: Is a directory"),
        (["--data", "d.xlsx"], "d.xlsx: must be a .csv, .tsv or .txt"),
        (["--data", "clouds.csv", "--target", "z"], "no column 'z'; its columns: a, b, c, label"),
        (["--data", "d.npz", "--target", "z"], "d.npz: --target names a column of a table"),
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
def test_bad_options(arguments, problem, capsys):
    write_clouds()
    Path("folder.csv").mkdir()
    assert problem in only_line(run("train", *arguments, status=2, capsys=capsys))
    assert not Path("out").exists()


@pytest.mark.parametrize("package", ["sklearn", "matplotlib", "rich", "pyarrow"])
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


# Examples.


def test_examples_run():
    for name, last in (("quick_start.py", 1e-5), ("numpy_only.py", 1e-2)):
        done = in_a_fresh_process("-W", "error", EXAMPLES / name)
        assert done.returncode == 0, done.stderr
        first, *_, end = re.findall(r"loss (\S+)", done.stdout)
        assert float(end) < last < float(first)


def test_the_examples_of_fit_run():
    done = in_a_fresh_process("-W", "error", EXAMPLES / "fit_a_table.py")
    assert done.returncode == 0, done.stderr
    ours, theirs = re.findall(r"(?:fit|loop) ([0-9.]+)[,\n]", done.stdout)[:2]
    assert float(ours) == pytest.approx(float(theirs), rel=1e-3)
    done = in_a_fresh_process("-W", "error", EXAMPLES / "fit_and_loop.py")
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r": ([0-9.]+)\n", done.stdout)]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 3
    done = in_a_fresh_process("-W", "error", EXAMPLES / "numpy_fit.py")
    assert done.returncode == 0, done.stderr
    first, last = re.findall(r"([0-9.]+) (?:at first|after)", done.stdout)
    assert float(last) < float(first) / 2


def test_the_example_times_a_grid_search():
    done = in_a_fresh_process("-W", "error", EXAMPLES / "grid_search.py", "2")
    assert done.returncode == 0, done.stderr
    before, after, _ = done.stdout.splitlines()
    found = [line.partition(" s, ")[2] for line in (before, after)]
    assert found[0] == found[1]
    assert before.startswith("scikit-learn: ")
    assert after.startswith("fused: ")


def test_the_example_reads_a_checkpoint_of_the_digits():
    run("train", "--epochs", 5, "--hidden", 64, "--save", "digits.pt")
    done = in_a_fresh_process("-W", "error", EXAMPLES / "load_checkpoint.py", "digits.pt")
    assert done.returncode == 0, done.stderr
    right = re.fullmatch(r"(\d+) of 1797 digits are read right after 5 epochs\n", done.stdout)
    assert right is not None
    assert int(right[1]) > 1600


def test_every_example_is_tested():
    text = Path(__file__).read_text()
    parallel = (Path(__file__).parent / "ecosystem" / "test_distributed.py").read_text()
    for path in EXAMPLES.glob("*.py"):
        kind = path.stem.removeprefix("distributed_")
        assert path.name in text or (kind != path.stem and f'"{kind}"' in parallel), path
