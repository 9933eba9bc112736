"""What the peers compute, on the CPU; a graph and the compiler's tuning need a GPU."""

from __future__ import annotations

import pytest
import torch

from benches.gpu import peers
from benches.gpu.cases import BOTH, FORWARD, Case
from tests.shapes import Shape

SHAPE = Shape(33, 70, 65, 10)


@pytest.mark.parametrize("work", [BOTH, FORWARD])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("needs_x", [False, True])
def test_peers_compute_the_same(monkeypatch, work, dtype, needs_x):
    if needs_x:
        monkeypatch.setattr("benches.gpu.cases.TRANSFORMER", (SHAPE,))
    case = Case(SHAPE, dtype, work=work)
    network = peers.Network(case, device="cpu", backend="torch")
    exacts = peers.exact(network)
    assert len(exacts) == (1 if work == FORWARD else 5 + needs_x)
    for name in (peers.OURS, peers.DEFAULT, peers.EAGER, peers.RECOMPUTE):
        found = peers.check(case, peers.PEERS[name](network)(), exacts)
        assert found.keys() == exacts.keys()
    assert peers.PEERS[peers.PRODUCTS](network)() == {}


@pytest.mark.parametrize("fault", [0.0, float("nan")])
def test_a_peer_that_is_wrong_is_found(fault):
    case = Case(SHAPE, "float32")
    network = peers.Network(case, device="cpu", backend="torch")
    wrong = peers.PEERS[peers.EAGER](network)()
    wrong["grad_w1"][:, 64] = fault
    with pytest.raises(ArithmeticError, match="grad_w1 is wrong"):
        peers.check(case, wrong, peers.exact(network))


def test_an_error_anywhere_in_a_large_result_is_found(monkeypatch):
    """The median is that of some elements, the norm that of all."""
    monkeypatch.setattr(peers, "_LOOKED_AT", 10)
    network = peers.Network(Case(SHAPE, "float32"), device="cpu", backend="torch")
    exacts = peers.exact(network)
    for place in (0, 1, 333):
        wrong = peers.PEERS[peers.EAGER](network)()
        assert peers.check(network.case, wrong, exacts).keys() == exacts.keys()
        wrong["grad_w1"].view(-1)[place] += 1e3
        with pytest.raises(ArithmeticError, match="grad_w1 is wrong"):
            peers.check(network.case, wrong, exacts)


def test_a_backend_is_named_but_by_default():
    network = peers.Network(Case(SHAPE, "float32"), device="cpu", backend="torch")
    assert network.fused().backend == "torch"
    assert network.fused(by_name=False).backend is None


@pytest.mark.parametrize(
    ("shape", "mode"),
    [
        (Shape(64, 1000, 100, 10), "max-autotune"),
        (Shape(4096, 1024, 4096, 1024), "max-autotune-no-cudagraphs"),
    ],
)
def test_large_networks_are_tuned_without_graphs(monkeypatch, shape, mode):
    modes = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: modes.append(options["mode"]))
    network = peers.Network(Case(shape, "bfloat16"), device="meta")
    peers.PEERS[peers.AUTOTUNED](network)
    assert modes == [mode]
