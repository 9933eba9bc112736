"""What the programs of a launch count their arrivals in."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from twolayer_kernels.backends.triton import arrivals, two_layers

from ..problems import check_exact, fused, integers
from ..shapes import Shape

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh():
    arrivals.forget()
    yield
    arrivals.forget()


@pytest.fixture
def captured(monkeypatch):
    """Turns a capture on, in which memory that somebody asks for is counted."""
    cleared = []

    def begin():
        zeros = torch.zeros
        monkeypatch.setattr(arrivals, "_is_captured", lambda device: True)
        monkeypatch.setattr(
            torch, "zeros", lambda *size, **kw: cleared.append(size) or zeros(*size, **kw)
        )
        return cleared

    return begin


def run(batch=200, seed=6):
    problem = integers(Shape(batch, 3, 20, 2), torch.float32, seed=seed)
    check_exact(problem, fused(problem, "triton"))


def test_launches_of_a_stream_share_them(force):
    force.path("narrow")
    for batch in (200, 7, 1500):
        run(batch)
    (counters,) = arrivals._of_streams.values()
    assert not counters.any()


def test_launches_of_a_graph_take_slices_and_clear_nothing(force, captured, monkeypatch):
    force.path("narrow")
    run()
    cleared, taken = captured(), []
    monkeypatch.setattr(
        two_layers, "counters", lambda *a: taken.append(arrivals.counters(*a)) or taken[-1]
    )
    for seed in (7, 8):
        run(seed=seed)
    assert len(taken) == 4
    assert cleared == []
    (of_the_stream,) = arrivals._of_streams.values()
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in (*taken, of_the_stream))
    for (_, end), (begin, _) in pairwise(spans):
        assert end <= begin, "two launches that may run at once count in the same memory"


def test_a_capture_without_a_slab_clears_its_own(force, captured):
    force.path("narrow")
    cleared = captured()
    run()
    assert len(cleared) == 2
    assert not arrivals._slabs


def test_a_slab_at_its_end(monkeypatch, captured):
    monkeypatch.setattr(arrivals, "_SLAB", arrivals._OF_A_STREAM + 16)
    assert arrivals.counters(CPU, 8).numel() == arrivals._OF_A_STREAM
    assert arrivals.counters(CPU, 5000).numel() == 5000
    cleared = captured()
    slices = [arrivals.counters(CPU, 5) for _ in range(3)]
    assert all(t.numel() == 5 for t in slices)
    assert len(cleared) == 1
    assert slices[0].data_ptr() + 32 == slices[1].data_ptr()  # at multiples of 16 bytes


def test_no_memory_is_said_as_it_is(monkeypatch):
    def full(*size, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        arrivals.counters(CPU, 8)
