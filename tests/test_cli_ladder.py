"""``twolayer ladder``: its table, its exit status, its bad options."""

from __future__ import annotations

import re

import pytest
import torch

from twolayer_kernels import cli
from twolayer_kernels.app.ladder import running
from twolayer_kernels.app.ladder.running import BUDGETS

from .commands import one_thread, only_line


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def test_the_command_prints_a_table(capsys):
    status = cli.main(["ladder", "--rung", "chain", "--rung", "numpy", "--steps", "30"])
    out = capsys.readouterr().out
    assert status == 0, out
    assert "64 x 1000 x 100 x 10, 30 steps, float32 on cpu by cpu[" in out
    for word in ("numpy (no bias)", "numpy (bias)", "chain", "us/step", "ratio", "ok", "1e-03"):
        assert word in out
    assert re.search(r"^numpy \(bias\) .* ok *\n  by fit .* \d\.\d\dx ok *$", out, re.MULTILINE)
    assert re.search(r"^chain .* ok *\n  by fit +- +- *$", out, re.MULTILINE)
    assert "autograd" not in out
    assert "…" not in out


def test_the_command_says_that_float32_is_chaotic_on_dynamic(capsys):
    assert cli.main(["ladder", "--rung", "dynamic", "--steps", "5"]) == 0
    assert "chaotic in float32" in capsys.readouterr().out
    arguments = ["ladder", "--rung", "dynamic", "--steps", "5", "--dtype", "float64"]
    assert cli.main([*arguments, "--threads", "1", "--seed", "3"]) == 0
    assert "chaotic" not in capsys.readouterr().out


def test_the_status_is_1_out_of_budget(capsys, monkeypatch):
    monkeypatch.setitem(BUDGETS, torch.float32, running.Budget(0.0, 0.0))
    assert cli.main(["ladder", "--rung", "autograd", "--rung", "chain", "--steps", "30"]) == 1
    streams = capsys.readouterr()
    assert "OUT" in streams.out
    assert streams.err.startswith("twolayer: out of budget: autograd: loss curves ")
    assert len(streams.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--rung", "nosuch"], "--rung must be one of numpy, tensors, "),
        (["--steps", "0"], "'--steps'"),
        (["--dtype", "float16"], "'--dtype'"),
        (["--device", "nosuch"], "--device nosuch: "),
        (["--device", "meta"], "--device meta: "),
        (["--backend", "nosuch"], "--backend must be None or one of "),
        (["--threads", "0"], "'--threads'"),
        (["--seed", "-1"], "'--seed'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options(arguments, problem, capsys):
    assert cli.main(["ladder", *arguments]) == 2
    assert problem in only_line(capsys.readouterr())
