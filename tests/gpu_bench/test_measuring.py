"""One row measured on the CPU: what needs CUDA fails there, and is recorded."""

from __future__ import annotations

import pytest
import torch

from benches.gpu import measuring, peers, profiling, timing
from benches.gpu.cases import Case
from benches.gpu.passes import CHEAP
from tests.shapes import Shape

CASE = Case(Shape(33, 70, 65, 10), "float32", tf32=True)
GRADIENTS = {"y", "grad_w1", "grad_w2", "grad_b1", "grad_b2"}


@pytest.fixture
def on_cpu(monkeypatch):
    def network(case):
        return peers.Network(case, device="cpu", backend="torch")

    def timer(call, count):
        call()
        return 1e-3

    monkeypatch.setattr(measuring, "Network", network)
    monkeypatch.setattr(profiling, "Network", network)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(measuring, "_timer", lambda: timer)
    monkeypatch.setattr(timing, "host_seconds", lambda call: 2e-3)
    monkeypatch.setattr(timing, "peak_bytes", lambda call: 4)
    monkeypatch.setattr(timing, "held_bytes", lambda forward: forward()["y"].numel())


def test_a_row_records_what_each_peer_did(on_cpu):
    precision = torch.get_float32_matmul_precision()
    names = CHEAP.peers_of(CASE)
    found = measuring.measure(CASE, names)
    assert torch.get_float32_matmul_precision() == precision
    assert tuple(found) == names
    for name in (peers.OURS, peers.EAGER, peers.DEFAULT, peers.RECOMPUTE, peers.CONTROL):
        assert (found[name]["median"], found[name]["host"]) == (1e-3, 2e-3)
        assert found[name]["errors"].keys() == GRADIENTS
        assert "beside" not in found[name]
    for name in (peers.OURS, peers.EAGER, peers.RECOMPUTE):
        assert found[name]["held_bytes"] == 330
    assert "cpu" in found[peers.DEFAULT]["explained"]
    assert "errors" in found[peers.PRODUCTS]
    if not torch.cuda.is_available():
        assert found[peers.GRAPH].keys() == found[peers.OUR_GRAPH].keys() == {"error"}


def test_what_stands_beside_is_timed_in_turn_and_noted(on_cpu):
    found = measuring.measure(CASE, [peers.CONTROL], [peers.EAGER, peers.GRAPH])
    assert list(found) == [peers.CONTROL]
    if not torch.cuda.is_available():  # a graph cannot be built
        assert found[peers.CONTROL]["beside"] == {peers.EAGER: 1e-3}


def test_a_peer_that_fails_leaves_the_others(on_cpu, monkeypatch):
    def broken(network):
        raise RuntimeError("out of\n  memory")

    monkeypatch.setitem(peers.PEERS, peers.OURS, broken)
    found = measuring.measure(CASE, [peers.OURS, peers.EAGER])
    assert found[peers.OURS] == {"error": "RuntimeError: out of memory"}
    assert found[peers.EAGER]["median"] == 1e-3


def test_a_profile_names_the_kernels_of_both(on_cpu):
    text = profiling.table(CASE)
    assert f"{CASE.id}, ours, 5 steps" in text
    assert f"{CASE.id}, eager, 5 steps" in text
    assert text.count("aten::mm") >= 2
