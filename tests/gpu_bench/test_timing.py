"""How peers are timed: in turn, in blocks, in rounds that fit a time."""

from __future__ import annotations

import pytest

from benches.gpu import timing


def test_peers_take_turns_in_blocks():
    order, costs = [], {"one": 1e-4, "other": 0.05}
    calls = {name: (lambda name=name: name) for name in costs}

    def timer(call, count):
        order.append(call())
        return costs[call()]

    found = timing.time_in_turn(calls, timer, rounds=20)
    assert found["one"]["calls"] == 20
    assert found["other"]["calls"] == 1
    assert found["other"]["median"] == 0.05
    assert found["one"]["rounds"] == 20
    assert order[4:8] == ["one", "other", "other", "one"]


@pytest.mark.parametrize(("seconds", "rounds"), [(1e-4, 21), (0.04, 16), (0.1, 7), (5.0, 7)])
def test_long_calls_are_timed_in_fewer_rounds(seconds, rounds):
    found = timing.time_in_turn(dict.fromkeys("abc", str), lambda call, count: seconds)
    assert {figures["rounds"] for figures in found.values()} == {rounds}


def test_without_calls_nothing_is_timed():
    assert timing.time_in_turn({}, lambda call, count: 1.0) == {}
