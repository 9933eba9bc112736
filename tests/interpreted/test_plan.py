"""The plan of a narrow backward, by itself."""

from __future__ import annotations

from itertools import pairwise

import pytest

from twolayer_kernels.backends.triton.plan import counter_offset, plan_backward, share_offset

BLOCKS = 32, 16, 64
SIZES = (100, 130, 33, 10)  # 4 blocks of the batch, 3 of the input's features, 3 of the hidden ones
ALL = (True,) * 5


@pytest.mark.parametrize(
    ("needs", "programs"),
    [
        (ALL, (9 * 4, 3 * 4, 4 * 3)),
        ((False, True, True, True, True), (9 * 4, 3 * 4, 0)),
        ((True, False, False, False, False), (0, 0, 12)),
        ((False, False, False, False, True), (0, 12, 0)),
        ((False, True, False, False, False), (36, 0, 0)),
    ],
    ids=str,
)
def test_a_kind_that_nobody_asks_for_has_no_programs(needs, programs):
    plan = plan_backward(*SIZES, needs, BLOCKS, 4)
    assert plan[:3] == programs
    assert plan.programs == sum(programs)


def test_shares_lie_beside_each_other():
    _, inputs, hidden, out = SIZES
    offsets = [share_offset(name, inputs, hidden, out) for name in ("w1", "w2", "b1", "b2", "end")]
    sizes = [hidden * inputs, out * hidden, hidden, out]
    assert offsets[0] == 0
    assert [after - before for before, after in pairwise(offsets)] == sizes
    assert plan_backward(*SIZES, ALL, BLOCKS, 4).share_size == offsets[-1]


def test_each_tile_has_a_counter_of_its_own():
    starts = [counter_offset(name, 3, 3) for name in ("w1", "w2", "b1", "b2", "end")]
    assert starts[0] == 0
    assert [after - before for before, after in pairwise(starts)] == [9, 3, 3, 1]
    assert plan_backward(*SIZES, ALL, BLOCKS, 4).counters == starts[-1]


def test_one_part_shares_nothing():
    plan = plan_backward(*SIZES, ALL, BLOCKS, 1)
    assert (plan.share_size, plan.counters) == (0, 0)
