"""Column sums whose rows are shared by several programs."""

from __future__ import annotations

import pytest
import torch

from twolayer_kernels.backends.triton import arrivals, layers

from .forcing import HOPPER


def integers(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-8, 9, shape, generator=generator).float()


def sums(source, monkeypatch, multiprocessors):
    device = HOPPER._replace(multiprocessors=multiprocessors)
    monkeypatch.setattr(layers, "device_of", lambda t: device)
    taken = []
    launch = layers.launch
    monkeypatch.setattr(layers, "launch", lambda *a: taken.append(a[1]) or launch(*a))
    found = layers.column_sums(source)
    monkeypatch.setattr(layers, "launch", launch)
    return found, taken[0][1]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 1), 1), ((700, 1), 1), ((3000, 20), 11), ((3001, 129), 46), ((517, 300), 8)],
    ids=str,
)
def test_shared_sums_are_those_of_one_program(shape, expected, monkeypatch):
    source = integers(*shape)
    alone, parts = sums(source, monkeypatch, 1)
    assert parts <= 2
    shared, parts = sums(source, monkeypatch, 132)
    assert parts == expected
    assert torch.equal(shared, source.sum(0))
    assert torch.equal(alone, shared)


def test_a_transposed_source(monkeypatch):
    source = integers(3, 5000).T
    found, parts = sums(source, monkeypatch, 132)
    assert parts > 1
    assert torch.equal(found, source.sum(0))


def test_counters_are_zero_again(monkeypatch):
    arrivals.forget()
    _, parts = sums(torch.ones(3000, 20), monkeypatch, 132)
    assert parts > 1
    (counters,) = arrivals._of_streams.values()
    assert not counters.any()
