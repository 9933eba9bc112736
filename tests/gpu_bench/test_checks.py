"""What is checked before anything is timed: how it is run, and what its output says."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from benches.gpu import checks, children, machine, smoke
from benches.gpu.results import log_for
from twolayer_kernels.backends.triton.tiles import is_narrow

from .samples import TESTS


def test_what_the_test_run_says_is_kept():
    lines = [
        "[gw0] [  1%] PASSED tests/cuda/test_results.py::test_y",
        "[gw1] [  2%] FAILED tests/cuda/test_results.py::test_x[1 2]",
        "FAILED tests/cuda/test_results.py::test_x[1 2] - AssertionError",
        "= 1 failed in 3.0s =",
    ]
    red = checks.judged_tests(1, lines, 99)
    assert (red["passed"], red["summary"]) == (False, "1 failed in 3.0s")
    assert (red["failures"], red["failure_count"]) == (lines[2:3], 1)
    assert checks.judged_tests(0, ["700 passed in 60.0s"], 99)["passed"]
    assert not checks.judged_tests(5, ["no tests ran in 0.1s"], 99)["passed"]
    collecting = checks.judged_tests(2, ["ERROR tests/cuda/test_x.py - ImportError: x"], 99)
    assert collecting["failure_count"] == 1


@pytest.mark.parametrize(
    "lines",
    [
        ["[gw0] [ 1%] PASSED tests/a.py::x", "[gw0] [ 2%] FAILED tests/a.py::y"],
        ["tests/a.py::x PASSED [ 1%]", "tests/a.py::y FAILED [ 2%]"],
    ],
    ids=["in parallel", "one by one"],
)
def test_tests_that_were_stopped_are_red_only_where_one_failed(lines):
    found = checks.judged_tests(None, lines, 99)
    assert found["passed"] is False
    assert found["summary"] == "stopped after 99 s: 1 passed, 1 failed until then"
    found = checks.judged_tests(None, lines[:1], 99)
    assert found["passed"] is None
    assert not checks.trustworthy(TESTS | found)


def test_what_the_exact_run_says_is_kept():
    lines = ["a: exact", "b: FAILED: x", "1 exact, 1 failed"]
    assert checks.judged_smoke(1, lines) == {
        "passed": False, "summary": "1 exact, 1 failed", "failures": ["b: FAILED: x"]
    }  # fmt: skip
    assert checks.judged_smoke(0, ["2 exact, 0 failed"])["passed"]
    assert checks.judged_smoke(None, lines[:1]) == {
        "passed": None, "summary": "stopped; the last line: a: exact", "failures": []
    }  # fmt: skip
    assert checks.judged_smoke(None, lines[:2])["passed"] is False
    assert checks.judged_smoke(1, [])["summary"] == "no output"


def test_the_commit_of_files_without_their_repository(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TWOLAYER_COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.commit() == "unknown"
    monkeypatch.setenv("TWOLAYER_COMMIT", "abc1234")
    assert machine.commit() == "abc1234"


def test_a_warning_does_not_make_the_gpu_tests_red(tmp_path):
    """torch 2.11 warns as Inductor is imported; elsewhere in this project a warning is an error."""
    test = tmp_path / "test_warning.py"
    test.write_text("import warnings\n\ndef test_it():\n    warnings.warn('deprecated')\n")
    project = children.ROOT
    command = checks.command_of_tests()
    assert command[-1] == "tests/cuda"
    command[-2:] = ["-c", str(project / "pyproject.toml"), str(test)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 warning" in done.stdout


def test_only_faults_that_the_sanitizer_names_count_against_a_run():
    for status, passed in ((0, True), (9, False), (1, None), (None, None)):
        sanitizer = checks.judged_sanitizer(status, ["========= ERROR SUMMARY"])
        assert sanitizer["passed"] is passed
        assert checks.trustworthy({**TESTS, "sanitizer": sanitizer}) == (passed is not False)


def test_figures_need_green_tests_and_exact_results():
    assert checks.trustworthy(TESTS)
    assert not checks.trustworthy({**TESTS, "passed": False})
    assert not checks.trustworthy({**TESTS, "smoke": {"passed": False}})
    assert not checks.trustworthy(checks.NOT_RUN)


def test_what_was_stopped_is_worth_another_run_and_what_failed_is_not():
    assert checks.unfinished(checks.NOT_RUN)
    assert checks.unfinished({**TESTS, "passed": None})
    assert checks.unfinished({**TESTS, "smoke": {"passed": None}})
    assert not checks.unfinished(TESTS)
    assert not checks.unfinished({**TESTS, "passed": False})


def test_the_gpu_tests_run_without_the_suites_conftest():
    """As the bench runs them; where there is no GPU every module is skipped with a reason."""
    if torch.cuda.is_available():
        pytest.skip("they run by themselves here")
    ran = subprocess.run(
        checks.command_of_tests(),
        capture_output=True,
        text=True,
        check=False,
        cwd=children.ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert ran.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, ran.stdout
    assert "needs 1 CUDA device(s), there are 0" in ran.stdout


# The exact results.


def test_exact_results_take_both_ways():
    assert all(is_narrow("ieee", *shape) for shape in smoke.NARROW)
    assert not any(is_narrow("16bit", *shape) for shape in smoke.LAYER_BY_LAYER)
    probes = list(smoke.probes())
    assert len({str(probe) for probe in probes}) == len(probes)


def test_exact_results_are_said_to_be(capsys):
    assert smoke.main(device="cpu", backend="torch") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(lines) - 1} exact, 0 failed"
    assert lines[0] == "64x1000x100x10 float32: exact"


def test_a_result_that_is_not_exact_is_named(capsys, monkeypatch):
    right = smoke.fused

    def wrong(problem, backend, **options):
        results = right(problem, backend, **options)
        if options["recompute"]:
            results["grad_w1"][3, 5] += 1
        return results

    monkeypatch.setattr(smoke, "fused", wrong)
    assert smoke.main(device="cpu", backend="torch") == 1
    said = capsys.readouterr().out
    assert "64x1000x100x10 float32 recompute: FAILED: AssertionError: grad_w1" in said
    assert said.endswith("16 exact, 4 failed\n")


# Commands beside the bench.


def test_all_that_a_child_says_is_in_its_log_as_it_comes(tmp_path):
    log = tmp_path / "new" / "child.log"
    code = "import os, time; print('first'); os.write(2, b'\\xff second\\n'); time.sleep(60)"
    with children.Child([sys.executable, "-c", code], log) as child:
        end = time.monotonic() + 30
        while len(child.lines()) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert child.lines() == ["first", "\ufffd second"]
        assert child.finish(0.01) is None
    assert child.finish(0) is not None  # it is gone


def test_a_child_does_not_outlive_an_interruption(tmp_path):
    pids = []

    def interrupted():
        with children.Child(["sleep", "60"], tmp_path / "log") as child:
            pids.append(child._process.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_the_checks_run_side_by_side_with_their_logs(monkeypatch, tmp_path):
    monkeypatch.setattr(checks.shutil, "which", lambda tool: None)
    say = [sys.executable, "-c", "print('tests/a.py::x FAILED [50%]'); print('= 1 failed =')"]
    monkeypatch.setattr(checks, "command_of_tests", lambda: say)
    monkeypatch.setattr(
        checks,
        "_smoke",
        lambda results: children.Child(["echo", "3 exact"], log_for(results, "smoke.log")),
    )
    found = checks.run(tmp_path / "gpu.json", 60)
    assert found["failures"] == ["tests/a.py::x FAILED [50%]"]
    assert found["smoke"] == {"passed": True, "summary": "3 exact", "failures": []}
    assert found["sanitizer"] == {"passed": None, "lines": ["not on the PATH"]}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gpu-smoke.log", "gpu-tests.log"]
