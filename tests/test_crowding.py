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


def test_one_late_thread_counts_for_a_short_while(crowding):
    crowding.finished(WORKED, LATE, 10.0)
    assert crowding.crowded(10.001)
    assert hold_after(crowding, 10.0) == pytest.approx(0.02, abs=0.002)


def test_a_late_thread_again_doubles_the_while_up_to_a_second(crowding):
    now, holds = 10.0, []
    for _ in range(8):
        crowding.finished(WORKED, LATE, now)
        holds.append(hold_after(crowding, now))
        now += holds[-1] + 0.01
    assert holds[1] == pytest.approx(2 * holds[0], abs=0.003)
    assert holds == sorted(holds)
    assert holds[-1] == pytest.approx(1.0, abs=0.002)


def test_much_later_it_is_a_first_time(crowding):
    for now in (10.0, 10.03, 10.08, 20.0):
        crowding.finished(WORKED, LATE, now)
    assert hold_after(crowding, 20.0) == pytest.approx(0.02, abs=0.002)


def test_long_work_excuses_a_long_wait(crowding):
    crowding.finished(0.009, 0.010, 10.0)
    assert not crowding.crowded(10.001)
