"""The GPU bench without a GPU: its goals, files, budget, tables, and what its peers compute."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benches.gpu import __main__ as command
from benches.gpu import (
    checks,
    goals,
    machine,
    measuring,
    peers,
    picture,
    report,
    results,
    running,
    timing,
)
from benches.gpu.budget import RESERVE_SECONDS, Budget, limited
from benches.gpu.cases import BOTH, CASES, FORWARD, TRANSFORMER, TUTORIAL, Case

from .shapes import Shape

MACHINE = {
    "name": "NVIDIA Sample 80GB",
    "driver": "580.1",
    "cuda": "13.0",
    "torch": "2.11.0",
    "triton": "3.6.0",
    "commit": "abc1234",
}
TESTS = {
    "passed": True,
    "summary": "700 passed in 61.00s",
    "failures": [],
    "failure_count": 0,
    "sanitizer": {"passed": True, "lines": []},
}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def figures(median, **more):
    return {"median": median, "low": 0.99 * median, "high": 1.01 * median, "rounds": 21, **more}


def sample_measure(case: Case, **slower: float):
    """Every goal is met; ``slower`` multiplies the time of one peer."""
    batch, _, hidden, _ = case.shape
    activation = batch * hidden * (2 if case.dtype == "bfloat16" else 4)
    ours = case.operations / 500e12 + 10e-6
    factors = {
        peers.EAGER: 4.0,
        peers.CONTROL: 4.0,
        peers.COMPILED: 3.5,
        peers.AUTOTUNED: 1.25,
        peers.GRAPH: 1.5,
        peers.PRODUCTS: 0.99,
        peers.OURS: 1.0,
        peers.OUR_GRAPH: 0.9,
        peers.RECOMPUTE: 1.2,
    }
    found = {
        name: figures(ours * factors[name] * slower.get(name, 1.0)) for name in peers.peers_of(case)
    }
    for name, error in ((peers.OURS, 1.5e-7), (peers.EAGER, 1e-7)):
        found[name]["errors"] = {"y": error}
    if case.work == BOTH:
        found[peers.OURS] |= {"held_bytes": activation + 512, "peak_bytes": 4 * activation}
        found[peers.RECOMPUTE] |= {"held_bytes": 512, "peak_bytes": 4 * activation}
    return {"peers": found}


def sample_rows(cases=CASES, **slower):
    budget = Budget(8, Clock())
    return running.run(
        cases, lambda c: sample_measure(c, **slower), lambda _: 1.0, budget, lambda _: None
    )


def sample(rows=None, **changes):
    return {
        "date": "2026-11-25T12:00:00+00:00",
        "minutes": 8,
        "machine": MACHINE,
        "tests": TESTS,
        "trustworthy": True,
        "rows": sample_rows() if rows is None else rows,
        **changes,
    }


def missed(rows):
    return [one.text for one in goals.outcomes(rows) if not one.reached]


# The rows.


def test_the_first_rows_are_the_most_important():
    assert [case.id for case in CASES[:3]] == [
        "forward+backward-64x1000x100x10-float32",
        "forward+backward-8192x2048x8192x2048-bfloat16",
        "forward+backward-4096x1024x4096x1024-float32",
    ]
    assert len({case.id for case in CASES}) == len(CASES)
    both = {case._replace(work=FORWARD) for case in CASES if case.work == BOTH}
    assert both == {case for case in CASES if case.work == FORWARD}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_operations_are_those_of_the_products(case):
    batch, in_features, hidden, out = case.shape
    first, second = 2 * batch * in_features * hidden, 2 * batch * hidden * out
    products = [first, second]
    if case.work == BOTH:
        products += [second, second, first] + [first] * case.input_gradient
    assert case.operations == sum(products)
    assert case.products == len(products)
    assert case.input_gradient == (case.work == BOTH and case.shape in TRANSFORMER)


# The peers, on the CPU; a graph and torch.compile's tuning need a GPU.


@pytest.mark.parametrize("work", [BOTH, FORWARD])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("needs_x", [False, True])
def test_peers_compute_the_same(monkeypatch, work, dtype, needs_x):
    shape = Shape(33, 70, 65, 10)
    if needs_x:
        monkeypatch.setattr("benches.gpu.cases.TRANSFORMER", (shape,))
    case = Case(shape, dtype, work=work)
    network = peers.Network(case, device="cpu", backend="torch")
    exacts = peers.exact(network)
    assert len(exacts) == (1 if work == FORWARD else 5 + needs_x)
    for name in (peers.OURS, peers.EAGER, peers.RECOMPUTE):
        found = peers.check(case, peers.PEERS[name](network)(), exacts)
        assert found.keys() == exacts.keys()
    assert peers.PEERS[peers.PRODUCTS](network)() == {}


@pytest.mark.parametrize("fault", [0.0, float("nan")])
def test_a_peer_that_is_wrong_is_found(fault):
    case = Case(Shape(33, 70, 65, 10), "float32")
    network = peers.Network(case, device="cpu", backend="torch")
    wrong = peers.PEERS[peers.EAGER](network)()
    wrong["grad_w1"][:, 64] = fault
    with pytest.raises(ArithmeticError, match="grad_w1 is wrong"):
        peers.check(case, wrong, peers.exact(network))


# Timing.


def test_peers_take_turns_in_blocks():
    order, costs = [], {"one": 1e-4, "other": 1.0}
    calls = {name: (lambda name=name: name) for name in costs}

    def timer(call, count):
        order.append(call())
        return costs[call()]

    found = timing.time_in_turn(calls, timer, rounds=20)
    assert found["one"]["calls"] == 20
    assert found["other"]["calls"] == 1
    assert found["other"]["median"] == 1.0
    assert found["one"]["rounds"] == 20
    assert order[4:8] == ["one", "other", "other", "one"]


# One row, measured on the CPU: what needs CUDA fails there, and is recorded.


def test_a_row_records_what_each_peer_did(monkeypatch):
    def network(case):
        return peers.Network(case, device="cpu", backend="torch")

    def timer(call, count):
        call()
        return 1e-3

    monkeypatch.setattr(measuring, "Network", network)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(timing, "Events", lambda: timer)
    monkeypatch.setattr(timing, "host_seconds", lambda call: 2e-3)
    monkeypatch.setattr(timing, "peak_bytes", lambda call: 4)
    monkeypatch.setattr(timing, "held_bytes", lambda forward: forward().numel())
    precision = torch.get_float32_matmul_precision()
    case = Case(Shape(33, 70, 65, 10), "float32", tf32=True)
    found = measuring.Measure(Budget(0.2, Clock()))(case)["peers"]
    assert torch.get_float32_matmul_precision() == precision
    assert list(found) == peers.peers_of(case)
    for name in (peers.OURS, peers.EAGER, peers.RECOMPUTE, peers.CONTROL):
        assert (found[name]["median"], found[name]["host"]) == (1e-3, 2e-3)
        assert found[name]["errors"].keys() == {
            "y", "grad_w1", "grad_w2", "grad_b1", "grad_b2"
        }  # fmt: skip
    assert found[peers.RECOMPUTE]["held_bytes"] == 330
    assert "errors" in found[peers.PRODUCTS]
    for name in (peers.COMPILED, peers.AUTOTUNED):
        assert found[name] == {"error": "skipped: no time left to build it"}
    if not torch.cuda.is_available():
        assert found[peers.GRAPH].keys() == found[peers.OUR_GRAPH].keys() == {"error"}


# Budget, and a run that is cut short.


def test_a_row_that_does_not_fit_is_skipped_and_smaller_ones_go_on():
    clock = Clock()
    budget = Budget((30 + RESERVE_SECONDS) / 60, clock)
    needed = {CASES[0]: 10.0, CASES[1]: 25.0, CASES[2]: 20.0, CASES[3]: 1.0}

    def measure(case):
        clock.now += needed[case]
        return sample_measure(case)

    rows = running.run(CASES[:4], measure, needed.__getitem__, budget, lambda _: None)
    assert [row["status"] for row in rows] == ["measured", "skipped", "measured", "skipped"]
    assert rows[1]["reason"] == "needs about 25 s, 20 s are left"
    assert [row["seconds"] for row in rows] == [10.0, 0.0, 20.0, 0.0]


def test_a_row_that_fails_is_recorded_and_the_next_goes_on():
    def measure(case):
        if case is CASES[0]:
            raise RuntimeError("out of\n  memory")
        return sample_measure(case)

    rows = running.run(CASES[:2], measure, lambda _: 1.0, Budget(8, Clock()), lambda _: None)
    assert rows[0]["reason"] == "RuntimeError: out of memory"
    assert rows[1]["status"] == "measured"


def test_the_file_is_whole_after_every_row(tmp_path):
    path, seen = results.file_for(MACHINE["name"], tmp_path / "new"), []

    def measure(case):
        if case is CASES[2]:
            raise KeyboardInterrupt
        return sample_measure(case)

    def written(rows):
        results.write(path, sample(rows))
        seen.append(len(results.read(path)["rows"]))

    with pytest.raises(KeyboardInterrupt):
        running.run(CASES, measure, lambda _: 1.0, Budget(8, Clock()), written)
    assert seen == [1, 2]
    assert path.name == "nvidia-sample-80gb.json"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    kept = results.read(path)
    assert [row["id"] for row in kept["rows"]] == [case.id for case in CASES[:2]]


def test_another_schema_is_refused(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"schema": 0}))
    with pytest.raises(ValueError, match="schema must be 1, got 0"):
        results.read(path)


def test_what_takes_too_long_is_stopped():
    with pytest.raises(TimeoutError, match="not ready"), limited(0.05):
        for _ in itertools.count():
            pass
    with limited(5):
        pass


def test_results_go_to_out(monkeypatch, tmp_path):
    monkeypatch.setenv("OUT", str(tmp_path))
    assert results.folder() == tmp_path
    monkeypatch.setenv("OUT", "")
    assert results.folder() == results.FOLDER


# Goals.


def test_all_goals_are_reached():
    found = goals.outcomes(sample_rows())
    assert [one.text for one in found if not one.reached] == []
    assert all(one.measured == one.rows > 0 for one in found)


@pytest.mark.parametrize(
    ("peer", "factor", "texts"),
    [
        (peers.EAGER, 0.2, {"never slower", "large bfloat16", "tf32x3", "tutorial"}),
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
    slow[peers.EAGER]["median"] = 0.9 * slow[peers.OURS]["median"]
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


# The report and the picture.


def test_the_report_has_rows_goals_and_what_failed():
    rows = sample_rows()
    rows[0]["peers"][peers.AUTOTUNED] = {"error": "RuntimeError: no"}
    rows[1] |= {"status": "skipped", "reason": "needs about 9 s, 1 s are left", "peers": {}}
    kept = sample(rows)
    text = report.text(kept, goals.outcomes(rows))
    first, skipped = rows[0]["id"], rows[1]["id"]
    (line,) = (line for line in text.splitlines() if line.startswith(f"{first} "))
    assert line.split()[1:3] == ["10.1", "us"]
    assert " 4.00 " in line
    assert f"{first}, compile max-autotune: RuntimeError: no" in text
    assert f"{skipped}: skipped: needs about 9 s" in text
    assert "control, eager against itself: 1.000 to 1.000" in text
    assert all(goal.text in text for goal in goals.GOALS)
    assert "NOT TRUSTWORTHY" not in text


def test_the_report_does_not_trust_a_red_run():
    rows = sample_rows()
    tests = {**TESTS, "passed": False, "failures": ["FAILED tests/cuda/test_results.py::test_x"]}
    text = report.text(sample(rows, tests=tests, trustworthy=False), goals.outcomes(rows))
    assert "NOT TRUSTWORTHY" in text
    assert "FAILED tests/cuda/test_results.py::test_x" in text


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "sample.png"
    assert picture.draw(sample(), path) == "picture: sample.png"
    assert path.stat().st_size > 0
    assert "no row" in picture.draw(sample([]), path)


# The checks before, and the command.


def test_what_the_test_run_says_is_kept():
    lines = ["FAILED tests/cuda/test_results.py::test_x - AssertionError", "= 1 failed in 3.0s ="]
    red = checks.judged_tests(1, lines)
    assert (red["passed"], red["summary"]) == (False, "1 failed in 3.0s")
    assert red["failures"] == lines[:1]
    assert checks.judged_tests(0, ["700 passed in 60.0s"])["passed"]
    assert not checks.judged_tests(None, ["..."])["passed"]
    assert not checks.judged_tests(5, ["no tests ran in 0.1s"])["passed"]


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
    project = Path(__file__).parents[1]
    command = checks.command_of_tests()
    assert command[-1] == "tests/cuda"
    command[-2:] = ["-c", str(project / "pyproject.toml"), str(test)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 warning" in done.stdout


def test_only_faults_that_the_sanitizer_names_count_against_a_run():
    green = {"passed": True}
    for status, passed in ((0, True), (9, False), (1, None), (None, None)):
        sanitizer = checks.judged_sanitizer(status, ["========= ERROR SUMMARY"])
        assert sanitizer["passed"] is passed
        assert checks.trustworthy({**green, "sanitizer": sanitizer}) == (passed is not False)
    assert not checks.trustworthy({"passed": False, "sanitizer": {"passed": None}})


def test_the_gpu_tests_run_without_the_suites_conftest():
    """As the bench runs them; where there is no GPU every module is skipped with a reason."""
    if torch.cuda.is_available():
        pytest.skip("they run by themselves here")
    ran = subprocess.run(
        checks.command_of_tests(),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert ran.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, ran.stdout
    assert "needs 1 CUDA device(s), there are 0" in ran.stdout


def test_without_a_gpu_the_command_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_imports_need_no_more_than_a_gpu_machine_has():
    """No rich, hypothesis, matplotlib, nor the compiled CPU kernels; no triton to read results."""
    blocked = ("rich", "hypothesis", "matplotlib", "twolayer_kernels._cpu", "triton", "pytest")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import benches.gpu.__main__, benches.gpu.readme, benches.gpu.one_step"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.fixture
def fake_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "describe", lambda: MACHINE)
    monkeypatch.setattr(machine, "nvidia_smi", dict)
    monkeypatch.setattr(checks, "run", lambda: TESTS)
    monkeypatch.setattr(command, "Measure", lambda budget: sample_measure)
    return tmp_path / "nvidia-sample-80gb.json"


def test_the_command_from_end_to_end(fake_gpu, capsys):
    assert command.main(["--minutes", "8"]) == 0
    kept = results.read(fake_gpu)
    assert [row["id"] for row in kept["rows"]] == [case.id for case in CASES]
    assert all(goal["reached"] for goal in kept["goals"])
    assert "worst row" in capsys.readouterr().out


def test_the_status_is_1_where_tests_fail_or_a_goal_is_missed(fake_gpu, monkeypatch):
    assert command.main(["--rows", str(TUTORIAL)]) == 1
    assert len(results.read(fake_gpu)["rows"]) == 2
    red = {**TESTS, "passed": False}
    monkeypatch.setattr(checks, "run", lambda: red)
    assert command.main([]) == 1
    assert results.read(fake_gpu)["trustworthy"] is False


def test_an_unknown_row_is_refused(fake_gpu, capsys):
    assert command.main(["--rows", "9x9"]) == 2
    assert CASES[0].id in capsys.readouterr().out
