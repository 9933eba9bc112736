"""Kernels compiled ahead are those that a launch on the GPU asks Triton's cache for."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from triton import knobs

from benches.gpu import ahead
from benches.gpu.cases import CASES, TUTORIAL, Case
from twolayer_kernels.backends import triton as backend

from . import stub

TARGET = ahead.Target(90, 132)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of Triton, here and in processes that are started; its compiled kernels."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path))
    return lambda: sorted(path.name for path in tmp_path.glob("*/*.cubin"))


def test_a_step_finds_its_kernels_in_the_cache(cache):
    """The tensors here have memory, as on a GPU; those of the compiling processes have none."""
    found = ahead.compile_all(ahead.of_rows([Case(TUTORIAL, "bfloat16")]), TARGET, 120)
    assert found == {"kernels": 3, "done": 3, "failures": []}  # a forward again has no second bias
    before = cache()
    assert len(before) == 3
    batch, in_features, hidden, out = TUTORIAL
    with stub.device(*TARGET) as driver:
        x, w1, w2, b1, b2 = (
            torch.empty(size, dtype=torch.bfloat16)
            for size in ((batch, in_features), (hidden, in_features), (out, hidden), hidden, out)
        )
        y, a = backend.two_layer_forward(x, w1, w2, b1, b2, True)
        for activation in (a, None):
            needs = (False, True, True, True, True)
            backend.two_layer_backward(y, x, w1, w2, b1, activation, needs)
        assert len(driver.launches) == 4
    assert cache() == before


def test_the_same_kernel_is_compiled_once():
    works = ahead.of_rows(CASES)
    pieces = ahead.distinct(works, TARGET)
    assert ahead.distinct([*works, *works], TARGET).keys() == pieces.keys()
    assert len(pieces) < 3 * len(works)


def test_the_tuners_kernels_are_many():
    pieces = ahead.distinct(ahead.of_the_tuner(TARGET), TARGET)
    kinds = {piece.work.func for piece in pieces.values()}
    assert kinds == {ahead.a_candidate, ahead.a_network, ahead.products_of_a_network}
    assert len(pieces) > 200


def broken():
    raise RuntimeError("no\n  kernel")


def test_what_cannot_be_compiled_is_named_and_the_others_are(cache, monkeypatch):
    pieces = {
        0: ahead.Piece(broken, 0),
        1: ahead.Piece(partial(ahead.a_row, CASES[0]), 0),
    }
    monkeypatch.setattr(ahead, "distinct", lambda works, target: pieces)
    found = ahead.compile_all([], TARGET, 120)
    assert found == {"kernels": 2, "done": 2, "failures": ["RuntimeError: no kernel"]}
    assert len(cache()) == 1


def test_compiling_ends_when_its_time_is_over(cache):
    found = ahead.compile_all(ahead.of_rows(CASES), TARGET, 0.0)
    assert found["done"] < found["kernels"]


def test_the_target_is_the_machines():
    machine = {"capability": "10.3", "multiprocessors": 148}
    assert ahead.target_of(machine) == ahead.Target(103, 148)
