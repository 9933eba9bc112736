"""The command without a GPU: what it needs, what it leaves, how it ends."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from benches.gpu import __main__ as command
from benches.gpu import ahead, checks, machine, parts, results
from benches.gpu.cases import CASES, TUTORIAL
from benches.gpu.children import ROOT

from .samples import FILE, MACHINE, RED, TESTS, sample_measure


def test_without_a_gpu_the_command_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_imports_need_no_more_than_a_gpu_machine_has():
    """No rich, hypothesis, matplotlib, nor the compiled CPU kernels; no triton to read results."""
    blocked = ("rich", "hypothesis", "matplotlib", "twolayer_kernels._cpu", "triton", "pytest")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import benches.gpu.__main__, benches.gpu.readme, benches.gpu.one_step\n"
        "import benches.gpu.smoke, benches.gpu.ship, twolayer_kernels.app.tune"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


class Tuner:
    def finish(self, seconds):
        return 0

    def lines(self):
        return ["measuring", "written: a table"]


class Worker(SimpleNamespace):
    def call(self, function, case, *asked, seconds):
        return sample_measure(case, *asked) if asked else f"{function.__name__} of {case.id}"


@pytest.fixture
def fake_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setenv("TWOLAYER_CACHE", "put back afterwards")
    monkeypatch.setattr(results, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "describe", lambda: MACHINE)
    monkeypatch.setattr(machine, "nvidia_smi", dict)
    monkeypatch.setattr(checks, "run", lambda path, seconds: TESTS)
    monkeypatch.setattr(ahead, "compile_all", lambda works, target, seconds: {"done": 1})
    monkeypatch.setattr(parts, "Child", lambda *_: nullcontext(Tuner()))
    monkeypatch.setattr(parts, "Worker", lambda: nullcontext(Worker()))
    return tmp_path / f"{FILE}.json"


def test_both_calls_one_after_the_other(fake_gpu, capsys):
    assert command.main([]) == 0
    kept = results.read(fake_gpu)
    assert [row["id"] for row in kept["rows"]] == [case.id for case in CASES]
    assert {row["status"] for row in kept["rows"]} == {"measured"}
    assert all(goal["reached"] for goal in kept["goals"])
    assert [call["part"] for call in kept["calls"]] == ["first", "second"]
    assert kept["calls"][1]["steps"]["tune"]["last"] == ["written: a table"]
    said = capsys.readouterr().out
    assert f"goes on with {FILE}.json" in said
    assert "worst row" in said
    profile = results.log_for(fake_gpu, "profile.txt").read_text()
    assert profile.splitlines() == [f"table of {case.id}" for case in CASES[:3]]


def test_the_second_call_alone_makes_up_for_the_first(fake_gpu, capsys):
    assert command.main(["second"]) == 0
    kept = results.read(fake_gpu)
    assert kept["tests"] == TESTS
    assert {row["status"] for row in kept["rows"]} == {"measured"}
    assert list(kept["rows"][0]["passes"]) == ["cheap", "compile", "max-autotune"]
    assert f"starts anew: no {FILE}.json from an earlier call" in capsys.readouterr().out


def test_the_second_call_runs_tests_again_that_the_first_had_to_stop(fake_gpu, monkeypatch):
    stopped = TESTS | {"passed": None, "summary": "stopped"}
    monkeypatch.setattr(checks, "run", lambda path, seconds: stopped)
    assert command.main(["first"]) == 1
    assert results.read(fake_gpu)["trustworthy"] is False
    monkeypatch.setattr(checks, "run", lambda path, seconds: TESTS)
    assert command.main(["second"]) == 0
    monkeypatch.setattr(checks, "run", lambda path, seconds: pytest.fail("they are green"))
    assert command.main(["second"]) == 0


def test_goals_that_only_the_second_call_can_reach_are_not_missed_by_the_first(fake_gpu):
    assert command.main(["first"]) == 0
    goals = {goal["text"]: goal for goal in results.read(fake_gpu)["goals"]}
    assert goals["x torch.compile max-autotune, any row"]["figure"] is None


def test_the_status_is_1_where_a_check_fails_or_a_goal_is_missed(fake_gpu, monkeypatch):
    assert command.main(["--rows", str(TUTORIAL)]) == 1  # no row of the goals for large networks
    assert len(results.read(fake_gpu)["rows"]) == 2
    monkeypatch.setattr(checks, "run", lambda path, seconds: RED)
    assert command.main([]) == 1
    assert results.read(fake_gpu)["trustworthy"] is False


def test_a_step_that_fails_is_recorded_and_the_rows_go_on(fake_gpu, monkeypatch):
    def compile_all(works, target, seconds):
        raise KeyError(86)

    monkeypatch.setattr(ahead, "compile_all", compile_all)
    assert command.main(["first"]) == 0
    (call,) = results.read(fake_gpu)["calls"]
    assert call["steps"]["compiled ahead"]["error"] == "KeyError: 86"


def test_checks_that_cannot_be_run_leave_the_rows(fake_gpu, monkeypatch):
    def run(path, seconds):
        raise OSError("no more processes")

    monkeypatch.setattr(checks, "run", run)
    assert command.main(["first"]) == 1
    kept = results.read(fake_gpu)
    assert {row["status"] for row in kept["rows"]} == {"measured"}
    assert kept["calls"][0]["steps"]["checks"]["error"] == "OSError: no more processes"


def test_an_interrupted_call_leaves_what_it_had(fake_gpu, monkeypatch):
    class Interrupted(Worker):
        def call(self, function, case, *asked, seconds):
            if case is CASES[2]:
                raise KeyboardInterrupt
            return super().call(function, case, *asked, seconds=seconds)

    monkeypatch.setattr(parts, "Worker", lambda: nullcontext(Interrupted()))
    with pytest.raises(KeyboardInterrupt):
        command.main(["first"])
    kept = results.read(fake_gpu)
    assert [row["status"] for row in kept["rows"][:3]] == ["measured", "measured", "not reached"]
    assert len(kept["rows"]) == len(CASES)
    assert kept["tests"] == TESTS


def test_a_call_has_its_time_or_its_share(monkeypatch):
    both = list(parts.PARTS)
    assert command._seconds(["second"], None) == {"second": 430.0}
    assert command._seconds(["first"], 1.5) == {"first": 90.0}
    shares = command._seconds(both, 8.0)
    assert sum(shares.values()) == pytest.approx(480)
    assert shares["first"] / shares["second"] == pytest.approx(240 / 430)


def test_an_unknown_row_is_refused(fake_gpu, capsys):
    assert command.main(["--rows", "9x9"]) == 2
    assert CASES[0].id in capsys.readouterr().out
