"""When a machine counts as crowded by other programs; time is passed in."""

from __future__ import annotations

import pytest

from twolayer_kernels.backends.cpu import _cpu

WORKED = 0.001
ON_TIME, LATE = 0.0002, 0.004  # seconds that the calling thread waited for the last one


@pytest.fixture
def crowding():
    return _cpu.Crowding()


def hold_after(crowding, now):
    """Seconds from ``now`` until the machine no longer counts as crowded."""
    for milliseconds in range(1, 3000):
        if not crowding.crowded(now + milliseconds * 1e-3):
            return milliseconds * 1e-3
    raise AssertionError("still crowded after three seconds")


def test_not_crowded_while_nobody_comes_late(crowding):
    assert not crowding.crowded(10.0)
    for i in range(100):
        crowding.finished(WORKED, ON_TIME, 10.0 + i)
    assert not crowding.crowded(109.001)


def late_twice(crowding, now):
    crowding.finished(WORKED, LATE, now - 0.01)
    crowding.finished(WORKED, LATE, now)


def test_late_once_is_a_hiccup(crowding):
    for now in (10.0, 10.1, 10.2):
        crowding.finished(WORKED, LATE, now)
        assert not crowding.crowded(now + 1e-4)


def test_late_twice_counts_for_a_short_while(crowding):
    late_twice(crowding, 10.0)
    assert crowding.crowded(10.001)
    assert hold_after(crowding, 10.0) == pytest.approx(0.02, abs=0.002)


def test_late_still_doubles_the_while_up_to_half_a_second(crowding):
    late_twice(crowding, 10.0)
    now, holds = 10.0, [hold_after(crowding, 10.0)]
    for _ in range(8):
        now += holds[-1] + 0.01
        crowding.finished(WORKED, LATE, now)
        holds.append(hold_after(crowding, now))
    assert holds[1] == pytest.approx(2 * holds[0], abs=0.003)
    assert holds == sorted(holds)
    assert holds[-1] == pytest.approx(0.5, abs=0.002)


def test_much_later_it_is_a_first_time(crowding):
    late_twice(crowding, 10.0)
    crowding.finished(WORKED, LATE, 10.03)
    assert hold_after(crowding, 10.03) == pytest.approx(0.04, abs=0.002)
    late_twice(crowding, 20.0)
    assert hold_after(crowding, 20.0) == pytest.approx(0.02, abs=0.002)


def test_long_work_excuses_a_long_wait(crowding):
    for now in (10.0, 10.02, 10.04):
        crowding.finished(0.009, 0.010, now)
        assert not crowding.crowded(now + 1e-4)
