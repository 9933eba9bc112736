"""A pass over the rows: what does not fit is skipped, what fails is named, all is written."""

from __future__ import annotations

import pytest

from benches.gpu import peers, results, running
from benches.gpu.budget import RESERVE_SECONDS, Budget
from benches.gpu.cases import CASES
from benches.gpu.passes import AUTOTUNE, CHEAP, COMPILE

from .samples import FILE, MACHINE, Clock, sample, sample_measure, sample_rows


def run(one, cases, measure, budget=None, rows=None, written=lambda one, row: None):
    rows = running.rows_of(cases) if rows is None else rows
    running.run(one, cases, rows, measure, budget or Budget(1e6, Clock()), written)
    return rows


def test_a_budget_keeps_a_reserve():
    clock = Clock()
    budget = Budget(100 + RESERVE_SECONDS, clock)
    clock.now = 30.0
    assert (budget.used(), budget.left()) == (30.0, 70.0)
    assert budget.at_most(50) == 50
    assert budget.at_most(50, keep=30) == 40
    assert budget.at_most(50, keep=80) == 0


def test_a_row_that_does_not_fit_is_skipped_and_smaller_ones_go_on():
    clock = Clock()
    budget = Budget(30 + RESERVE_SECONDS, clock)
    needed = {CASES[0]: 10.0, CASES[1]: 25.0, CASES[2]: 19.0, CASES[3]: 1.5}

    def measure(case, *asked):
        clock.now += needed[case]
        return sample_measure(case, *asked)

    rows = run(CHEAP._replace(needed=needed.__getitem__), CASES[:4], measure, budget)
    assert [row["status"] for row in rows] == ["measured", "skipped", "measured", "skipped"]
    assert running.reasons(rows[1]) == {"cheap": "skipped: needs about 25 s, 20 s are left"}
    assert [row["passes"]["cheap"]["seconds"] for row in rows] == [10.0, 0.0, 19.0, 0.0]


def test_a_row_has_as_long_as_its_pass_allows_and_the_budget_has():
    clock, allowed = Clock(), []
    budget = Budget(50 + RESERVE_SECONDS, clock)

    def measure(case, names, beside, seconds):
        allowed.append(seconds)
        clock.now += 20
        return sample_measure(case, names, beside)

    run(CHEAP._replace(needed=lambda case: 5.0), CASES[:3], measure, budget)
    assert allowed == [30, 30, 10]


def test_a_row_that_fails_is_recorded_and_the_next_goes_on():
    def measure(case, *asked):
        if case is CASES[0]:
            raise RuntimeError("out of\n  memory")
        return sample_measure(case, *asked)

    rows = run(CHEAP, CASES[:2], measure)
    assert running.reasons(rows[0]) == {"cheap": "failed: RuntimeError: out of memory"}
    assert [row["status"] for row in rows] == ["failed", "measured"]


def test_a_later_pass_adds_its_peers_and_keeps_the_earlier_ones():
    rows = sample_rows(CASES[:2], passes=[CHEAP])
    before = rows[0]["peers"][peers.OURS]["median"]

    def measure(case, *asked):
        if case is CASES[1]:
            raise TimeoutError("not ready within 45 s")
        return sample_measure(case, *asked, **{peers.OURS: 0.5})

    run(COMPILE, CASES[:2], measure, rows=rows)
    assert (
        rows[0]["peers"][peers.OURS] | {"median": before / 2, "before": before}
        == (rows[0]["peers"][peers.OURS])
    )
    assert "before" not in rows[0]["peers"][peers.COMPILED]
    assert peers.GRAPH in rows[0]["peers"]
    assert [row["status"] for row in rows] == ["measured", "partly"]
    assert peers.COMPILED not in rows[1]["peers"]
    assert rows[1]["peers"][peers.OURS]["median"] > 0
    assert running.reasons(rows[1]) == {"compile": "failed: TimeoutError: not ready within 45 s"}


def test_a_row_that_no_pass_has_reached_says_so():
    rows = running.rows_of(CASES)
    assert [row["id"] for row in rows] == [case.id for case in CASES]
    assert {row["status"] for row in rows} == {"not reached"}


def test_rows_of_an_earlier_call_are_kept_in_their_order():
    earlier = sample_rows(CASES[1:3])
    rows = running.rows_of([CASES[0], CASES[2]], earlier)
    assert [row["id"] for row in rows] == [case.id for case in CASES[:3]]
    assert rows[0]["status"] == "not reached"
    assert rows[1:] == earlier


def test_the_file_is_whole_after_every_row(tmp_path):
    path, seen = results.file_for(MACHINE["name"], tmp_path / "new"), []
    rows = running.rows_of(CASES)

    def measure(case, *asked):
        if case is CASES[2]:
            raise KeyboardInterrupt
        return sample_measure(case, *asked)

    def written(one, row):
        results.write(path, sample(rows))
        seen.append([r["id"] for r in results.read(path)["rows"] if r["status"] == "measured"])

    with pytest.raises(KeyboardInterrupt):
        run(CHEAP, CASES, measure, rows=rows, written=written)
    assert seen == [[CASES[0].id], [CASES[0].id, CASES[1].id]]
    assert [p.name for p in path.parent.iterdir()] == [f"{FILE}.json"]


def test_a_pass_asks_for_its_peers():
    asked = []

    def measure(case, names, beside, seconds):
        asked.append((names, beside, seconds))
        return sample_measure(case, names, beside)

    run(AUTOTUNE, CASES[:1], measure)
    assert asked == [((peers.AUTOTUNED,), (peers.OURS,), AUTOTUNE.most)]
