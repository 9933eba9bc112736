"""Checkpoints: plain torch reads them, resuming keeps the bits, each fault is named."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from twolayer_kernels import TwoLayerNet
from twolayer_kernels.app.files import read_samples

from .commands import one_thread, only_line, run, train_clouds


@pytest.fixture(autouse=True)
def _on_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with one_thread():
        yield


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


def test_a_checkpoint_from_before_fit_goes_on_with_the_fused_state():
    train_clouds("--epochs", 30, "--save", "c.pt")
    content = torch.load("c.pt", weights_only=True)
    older = {key: value for key, value in content.items() if not key.startswith("fit_")}
    torch.save(older, "c.pt")
    train_clouds("--epochs", 60, "--resume", "c.pt", "--save", "rest.pt")
    train_clouds("--epochs", 60, "--save", "whole.pt")
    rest, whole = (torch.load(name, weights_only=True) for name in ("rest.pt", "whole.pt"))
    assert rest["fit_losses"][:30] == content["losses"]
    for key in ("losses", "plain_losses"):
        assert rest[key] == whole[key]
    np.testing.assert_allclose(rest["fit_losses"], whole["fit_losses"], rtol=1e-4)


def test_a_checkpoint_loads_into_plain_torch(capsys):
    out = train_clouds("--epochs", 60, "--save", "deep/er/c.pt", capsys=capsys).out
    assert "checkpoint: deep/er/c.pt" in out
    content = torch.load("deep/er/c.pt", weights_only=True)
    model = TwoLayerNet(3, 8, 2)
    model.load_state_dict(content["model"])
    samples = read_samples(Path("clouds.csv"), None)
    x = torch.tensor(samples.x, dtype=torch.float32)
    x = (x - content["feature_mean"]) / content["feature_scale"]
    labels = np.array(content["classes"])[model(x).argmax(1).numpy()]
    assert (labels == samples.y).mean() > 0.9
    assert list(Path("deep/er").iterdir()) == [Path("deep/er/c.pt")]  # no unfinished file


def test_resuming_on_other_threads_is_noted(capsys):
    train_clouds("--epochs", 1, "--save", "c.pt")
    out = train_clouds("--epochs", 2, "--resume", "c.pt", capsys=capsys).out
    assert "same bits" not in out
    arguments = ("--epochs", 2, "--resume", "c.pt", "--threads", 2)
    assert "the same bits" in train_clouds(*arguments, capsys=capsys).out


def test_a_failed_save_leaves_the_old_file(monkeypatch):
    train_clouds("--epochs", 1, "--save", "c.pt")
    before = Path("c.pt").read_bytes()

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    train_clouds("--epochs", 1, "--save", "c.pt", status=2)
    assert Path("c.pt").read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["c.pt", "clouds.csv", "out"]


@pytest.fixture
def saved():
    """The content of a good checkpoint, and a way to write it changed."""
    train_clouds("--epochs", 1, "--save", "c.pt")
    content = torch.load("c.pt", weights_only=True)

    def write(**changes):
        torch.save({**content, **changes}, "c.pt")

    return content, write


def resume_problem(capsys, *arguments):
    capsys.readouterr()
    given = ("--data", "clouds.csv", "--epochs", 2, "--resume", "c.pt")
    return only_line(run("train", *given, *arguments, status=2, capsys=capsys))


def test_corrupt_checkpoints(saved, capsys):
    good = Path("c.pt").read_bytes()
    for broken in (b"", b"no checkpoint", good[: len(good) // 2], good[:-100]):
        Path("c.pt").write_bytes(broken)
        assert "c.pt: is no readable torch checkpoint" in resume_problem(capsys)
    torch.save([1, 2], "c.pt")
    assert "c.pt: holds a list" in resume_problem(capsys)
    torch.save({"model": {}}, "c.pt")
    assert "its 'format' is missing" in resume_problem(capsys)
    Path("c.pt").unlink()
    assert "c.pt: No such file" in resume_problem(capsys)


def with_moment(content, moment):
    """An optimizer's state in which one is of another shape: its step would write beyond it."""
    changed = copy.deepcopy(content["optimizer"])
    changed["state"][0]["exp_avg"] = moment
    return changed


def with_rate(content, lr):
    changed = copy.deepcopy(content["optimizer"])
    changed["param_groups"][0]["lr"] = lr
    return changed


def test_checkpoints_that_do_not_fit(saved, capsys):
    content, write = saved
    for changes, problem in (
        ({"format": 99}, "has format 99, this version reads 1"),
        ({"config": {**content["config"], "lr": -1.0}}, "its config has no usable lr"),
        ({"config": {**content["config"], "hidden_features": 9}}, "of shape (9, 3), got (8, 3)"),
        ({"config": {**content["config"], "in_features": 9}}, "on data with 9 features"),
        ({"model": {}}, "model needs linear1.weight of shape (8, 3), got nothing"),
        ({"fit_model": {}}, "fit_model needs linear1.weight of shape (8, 3), got nothing"),
        ({"fit_optimizer": None}, "its 'fit_optimizer' is missing or broken"),
        ({"optimizer": {"state": {}, "param_groups": []}}, "optimizer is no state"),
        ({"optimizer": with_moment(content, torch.zeros(3))}, "optimizer is no state"),
        ({"plain_optimizer": with_moment(content, None)}, "plain_optimizer is no state"),
        ({"fit_optimizer": with_rate(content, "x")}, "fit_optimizer is no state"),
        ({"losses": ["a"] * len(content["losses"])}, "losses are not those of"),
        ({"config": {**content["config"], "seed": 2**70}}, "its config has no usable seed"),
        ({"config": {**content["config"], "loss": "mse"}}, "its loss mse is none"),
        ({"rng": torch.zeros(3)}, "its state does not fit"),
        ({"epoch": 2}, "has 2 epochs already"),
        ({"epoch": -5}, "it has -5 epochs"),
        ({"config": {**content["config"], "loss": ["mse"]}}, "its config has no usable loss"),
    ):
        write(**changes)
        line = resume_problem(capsys)
        assert line.startswith("twolayer: c.pt: ")
        assert problem in line


def test_a_classifiers_checkpoint_is_not_resumed_as_a_regression(saved, capsys):
    problem = resume_problem(capsys, "--regression")
    assert "was trained on classes, got --regression" in problem


def test_a_checkpoint_of_other_data_or_options(saved, capsys):
    line = resume_problem(capsys, "--hidden", 9)
    assert "was trained with --hidden 8, got --hidden 9" in line
    arguments = ("train", "--epochs", 2, "--resume", "c.pt")
    line = only_line(run(*arguments, status=2, capsys=capsys))
    assert "clouds.csv; name that file with --data" in line
    clouds = Path("clouds.csv")
    text = clouds.read_text()
    clouds.write_text(text.replace("a,b,c,label", "a,b,c,label\n0,0,0,no", 1))
    assert "was trained on other samples" in resume_problem(capsys)
    clouds.write_text(re.sub(r"^[^,]*,", "", text, flags=re.MULTILINE))
    assert "on data with 3 features" in resume_problem(capsys)
