"""Which goals a run reaches, by the worst row that each speaks of."""

from __future__ import annotations

import json

import pytest

from benches.gpu import goals, peers
from benches.gpu.cases import BOTH

from .samples import sample_rows


def missed(rows):
    return [one.text for one in goals.outcomes(rows) if not one.reached]


def test_all_goals_are_reached():
    found = goals.outcomes(sample_rows())
    assert [one.text for one in found if not one.reached] == []
    assert all(one.measured == one.rows > 0 for one in found)


@pytest.mark.parametrize(
    ("peer", "factor", "texts"),
    [
        (peers.EAGER, 0.2, {"by default", "large bfloat16", "tf32x3", "tutorial"}),
        (peers.DEFAULT, 4.1, {"by default"}),
        (peers.PRODUCTS, 0.98, {"bare products"}),
        (peers.AUTOTUNED, 0.79, {"max-autotune"}),
        (peers.OUR_GRAPH, 1.5, {"both as graphs"}),
    ],
)
def test_a_missed_goal_is_named(peer, factor, texts):
    found = missed(sample_rows(**{peer: factor}))
    assert len(found) == len(texts)
    assert all(any(text in one for one in found) for text in texts)


def test_the_worst_row_decides():
    rows = sample_rows()
    slow = rows[-1]["peers"]
    slow[peers.EAGER]["median"] = 0.9 * slow[peers.DEFAULT]["median"]
    worst = goals.outcomes(rows)[0]
    assert not worst.reached
    assert (worst.figure, worst.worst) == (pytest.approx(0.9), rows[-1]["id"])


def test_a_large_error_and_a_kept_activation_miss_their_goals():
    rows = sample_rows()
    for row in rows:
        row["peers"][peers.OURS]["errors"]["y"] = 3e-7
        if row["work"] == BOTH:
            row["peers"][peers.RECOMPUTE]["held_bytes"] += 1024
    assert missed(rows) == ["the same, its error of eager's", "recompute, saved of the activation"]


def test_a_goal_without_a_figure_is_missed():
    rows = sample_rows()
    for row in rows:
        row["peers"][peers.AUTOTUNED] = {"error": "RuntimeError: no"}
    (text,) = missed(rows)
    assert "max-autotune" in text
    assert len(missed([])) == len(goals.GOALS)
    json.dumps(goals.as_data(goals.outcomes(rows)))
