"""The report at the end of a run, and its picture."""

from __future__ import annotations

import pytest

from benches.gpu import goals, peers, picture, report

from .samples import RED, sample, sample_rows


def test_the_report_has_rows_goals_and_what_failed():
    rows = sample_rows()
    rows[0]["peers"][peers.AUTOTUNED] = {"error": "RuntimeError: no"}
    rows[3]["peers"][peers.OURS]["before"] = 1.25 * rows[3]["peers"][peers.OURS]["median"]
    skip = {"status": "skipped", "reason": "needs about 9 s, 1 s are left"}
    rows[1] |= {"passes": {"cheap": skip}, "peers": {}}
    kept = sample(rows)
    text = report.text(kept, goals.outcomes(rows))
    first, skipped = rows[0]["id"], rows[1]["id"]
    (line,) = (line for line in text.splitlines() if line.startswith(f"{first} "))
    assert line.split()[1:3] == ["10.1", "us"]
    assert " 4.00 " in line
    assert f"{first}, compile max-autotune: RuntimeError: no" in text
    assert f"{skipped}, cheap: skipped: needs about 9 s" in text
    assert "control, eager against itself: 1.000 to 1.000" in text
    assert "ours as tuned, of its speed before: 1.00 to 1.25" in text
    assert all(goal.text in text for goal in goals.GOALS)
    assert "NOT TRUSTWORTHY" not in text


def test_the_report_does_not_trust_a_red_run():
    rows = sample_rows()
    tests = {**RED, "failures": ["FAILED tests/cuda/test_results.py::test_x"]}
    text = report.text(sample(rows, tests=tests, trustworthy=False), goals.outcomes(rows))
    assert "NOT TRUSTWORTHY" in text
    assert "FAILED tests/cuda/test_results.py::test_x" in text


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "sample.png"
    assert picture.draw(sample(), path) == "picture: sample.png"
    assert path.stat().st_size > 0
    assert "no row" in picture.draw(sample([]), path)
