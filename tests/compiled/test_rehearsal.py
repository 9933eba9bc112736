"""The GPU bench from end to end on a GPU that is not there: what its calls reach in their time."""

from __future__ import annotations

from benches.gpu import __main__ as command
from benches.gpu import parts, peers, results
from benches.gpu.cases import CASES
from benches.gpu.passes import AUTOTUNE, CHEAP, COMPILE, PASSES
from tests.gpu_bench.samples import FILE

from .rehearsal import Rehearsal

FIRST, SECOND = parts.FIRST, parts.SECOND
ALL = ["measured"] * len(CASES)
MOST_FILES = 8  # that some machines give back, of those under $OUT


def statuses(one, rows):
    return [row["passes"].get(one.name, {}).get("status") for row in rows]


def rehearse(rehearsal, part):
    """One call; what it left, and the seconds that it took."""
    began = rehearsal.clock.now
    command.main([part])
    return results.read(rehearsal.out / f"{FILE}.json"), rehearsal.clock.now - began


def check_first(kept):
    """Every row is there, with every peer that is quick to build."""
    rows = kept["rows"]
    assert [row["id"] for row in rows] == [case.id for case in CASES]
    assert {row["status"] for row in rows} == {"measured"}
    for row, case in zip(rows, CASES, strict=True):
        assert set(row["peers"]) == set(CHEAP.peers_of(case))
        assert all("median" in figures for figures in row["peers"].values()), row["id"]
    assert kept["trustworthy"]


def check_second(kept):
    """The slow peers, in the rows' order of importance; what remains is skipped by name."""
    rows = kept["rows"]
    assert statuses(CHEAP, rows) == statuses(COMPILE, rows) == ALL
    tuned = statuses(AUTOTUNE, rows)
    assert tuned[:2] == ["measured"] * 2
    assert "skipped" in tuned
    for row, status in zip(rows, tuned, strict=True):
        assert status in ("measured", "skipped", "failed")
        assert (peers.AUTOTUNED in row["peers"]) == (status == "measured")
        if status == "skipped":
            assert row["passes"][AUTOTUNE.name]["reason"].startswith("needs about")
            assert row["status"] == "partly"
    assert set(rows[0]["peers"]) == {name for one in PASSES for name in one.peers}
    assert list(rows[0]["peers"][peers.AUTOTUNED]["beside"]) == [peers.OURS]
    assert all("before" in row["peers"][peers.OURS] for row in rows)
    assert "before" not in rows[0]["peers"][peers.GRAPH]


def check_files(out):
    """Few enough to be carried home, and the tuner's table is among them."""
    files = [path for path in out.rglob("*") if path.is_file()]
    logs = {"smoke.log", "tests.log", "sanitizer.log", "tune.log"}  # of what did not run here
    assert len(files) + len(logs) <= MOST_FILES
    assert not any(path.suffix == ".part" for path in files)
    (table,) = (out / results.TUNED).iterdir()
    assert table.name == f"tiles-{FILE}.json"


def test_both_calls_from_end_to_end(tmp_path, monkeypatch):
    rehearsal = Rehearsal(monkeypatch, tmp_path)
    for part, check in ((FIRST, check_first), (SECOND, check_second)):
        kept, took = rehearse(rehearsal, part)
        print(f"{part}: {took:.0f} s")
        check(kept)
        assert took <= parts.SECONDS[part]
        assert rehearsal.late == []  # no row had to wait for a kernel
        steps = kept["calls"][-1]["steps"]
        assert steps["compiled ahead"]["done"] == steps["compiled ahead"]["kernels"] > 0
    assert [call["part"] for call in kept["calls"]] == [FIRST, SECOND]
    assert steps["tune"]["finished"]
    check_files(tmp_path)
    assert rehearsal.workers == 2
    assert set(rehearsal.launches) == {
        "narrow_forward_kernel",
        "narrow_backward_kernel",
        "product_kernel",
        "sum_parts_kernel",
        "column_sums_kernel",
    }


def test_tests_that_take_too_long_are_stopped_for_the_rows(tmp_path, monkeypatch):
    rehearsal = Rehearsal(monkeypatch, tmp_path, only_recorded=True)
    rehearsal.tests_take = 1000.0
    kept, took = rehearse(rehearsal, FIRST)
    assert statuses(CHEAP, kept["rows"]) == ALL
    assert took <= parts.SECONDS[FIRST]
    assert kept["tests"]["passed"] is None
    assert "stopped after" in kept["tests"]["summary"]
    assert not kept["trustworthy"]


def test_a_slower_machine_skips_the_last_rows_by_name(tmp_path, monkeypatch):
    rehearsal = Rehearsal(monkeypatch, tmp_path, only_recorded=True)
    rehearsal.slowness = 4.0
    kept, took = rehearse(rehearsal, FIRST)
    assert took <= parts.SECONDS[FIRST]
    found = statuses(CHEAP, kept["rows"])
    first = found.index("skipped")
    assert first > 6
    assert set(found[:first]) == {"measured"}
    for row, status in zip(kept["rows"], found, strict=True):
        assert ("reason" in row["passes"]["cheap"]) == (status == "skipped")
