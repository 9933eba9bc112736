"""The two calls that a run is made of: what each does in which order, and in which time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import ahead, checks, machine, measuring, profiling, report, results, running
from .budget import Budget
from .cases import Case
from .children import Child
from .passes import AUTOTUNE, CHEAP, COMPILE, Pass
from .worker import Worker

FIRST, SECOND = "first", "second"
SECONDS = {FIRST: 240.0, SECOND: 430.0}

# At most, for each step.
_AHEAD_SECONDS, _TESTS_SECONDS, _TUNE_SECONDS, _PROFILE_SECONDS = 60.0, 200.0, 150.0, 30.0
_WORKER_SECONDS = 10.0  # until a process has loaded torch and has its device
_PROFILED_ROWS = 3


class Call:
    """One call: its rows and time, what is known so far, and the file that it is written to."""

    def __init__(
        self, part: str, cases: Sequence[Case], kept: dict[str, Any], path: Path, budget: Budget
    ) -> None:
        self.cases, self.kept, self.path, self.budget = cases, kept, path, budget
        self._steps: dict[str, Any] = {}
        kept["rows"] = running.rows_of(cases, kept.get("rows", ()))
        kept.setdefault("tests", checks.NOT_RUN)
        date = datetime.now(UTC).isoformat(timespec="seconds")
        self._about = {"part": part, "date": date, "steps": self._steps}
        kept.setdefault("calls", []).append(self._about)
        self.write()

    def write(self) -> None:
        self.kept["trustworthy"] = checks.trustworthy(self.kept["tests"])
        self._about["seconds"] = round(self.budget.used(), 1)
        results.write(self.path, self.kept)

    def say(self, line: str) -> None:
        print(f"{self.budget.used():.0f} s: {line}", flush=True)

    def step(self, name: str, do: Callable[[], dict[str, Any]]) -> None:
        """What a step found, or how it failed, which does not end the run."""
        began = self.budget.used()
        try:
            found = do()
        except Exception as error:  # the rows do not depend on it
            found = {"error": measuring.in_a_line(error)}
        self._steps[name] = found | {"seconds": round(self.budget.used() - began, 1)}
        self.write()
        self.say(f"{name}: {found}")

    def check(self, keep: float) -> None:
        """The checks, in what is left when ``keep`` seconds stay for the rows."""

        def do() -> dict[str, Any]:
            self.kept["tests"] = checks.run(self.path, self.budget.at_most(_TESTS_SECONDS, keep))
            return {"found": report.checks_in_a_line(self.kept)}

        self.step("checks", do)

    def go_through(self, one: Pass, worker: Worker, cases: Sequence[Case] | None = None) -> None:
        def measure(
            case: Case, peers: Sequence[str], beside: Sequence[str], seconds: float
        ) -> dict[str, Any]:
            found: dict[str, Any] = worker.call(
                measuring.measure, case, peers, beside, seconds=seconds
            )
            return found

        def written(one: Pass, row: running.Row) -> None:
            self.write()
            self.say(f"{one.name}, {row['id']}: {row['passes'][one.name]['status']}")

        rows = self.kept["rows"]
        chosen = self.cases if cases is None else cases
        running.run(one, chosen, rows, measure, self.budget, written)

    def without(self, one: Pass) -> list[Case]:
        """The cases that a pass has not measured yet."""
        by_id = {row["id"]: row for row in self.kept["rows"]}
        found = {id: row["passes"].get(one.name, {}).get("status") for id, row in by_id.items()}
        return [case for case in self.cases if found[case.id] != "measured"]

    def compile_ahead(self, works: Callable[[ahead.Target], list[ahead.Work]], keep: float) -> None:
        def do() -> dict[str, Any]:
            target = ahead.target_of(self.kept["machine"])
            seconds = self.budget.at_most(_AHEAD_SECONDS, keep)
            return ahead.compile_all(works(target), target, seconds)

        self.step("compiled ahead", do)

    def tune(self) -> None:
        """The table of ``twolayer tune``, into the folder that :func:`use_tuned` names."""

        def do() -> dict[str, Any]:
            command = [sys.executable, "-m", "twolayer_kernels.app.tune"]
            with Child(command, results.log_for(self.path, "tune.log")) as child:
                status = child.finish(self.budget.at_most(_TUNE_SECONDS))
                last = child.lines()[-1:]
            return {"status": status, "finished": status == 0, "last": last}

        self.step("tune", do)

    def profile(self, worker: Worker) -> None:
        def do() -> dict[str, Any]:
            text = ""
            for case in self.cases[:_PROFILED_ROWS]:
                seconds = self.budget.at_most(_PROFILE_SECONDS)
                text += worker.call(profiling.table, case, seconds=seconds) + "\n"
                results.write_text(results.log_for(self.path, "profile.txt"), text)
            return {"lines": text.count("\n")}

        self.step("profile", do)


def _expected(one: Pass, cases: Sequence[Case]) -> float:
    return _WORKER_SECONDS + sum(map(one.needed, cases))


def use_tuned(path: Path) -> None:
    """From here on this process and its children have the tuner's table beside ``path``."""
    os.environ["TWOLAYER_CACHE"] = str(path.parent / results.TUNED)


def first(call: Call) -> None:
    """Correctness, and every row with the peers that are quick to build."""
    rows = _expected(CHEAP, call.cases)
    call.compile_ahead(lambda target: ahead.of_rows(call.cases), keep=rows)
    call.check(keep=rows)
    with Worker() as worker:
        call.go_through(CHEAP, worker)


def second(call: Call) -> None:
    """The tuner, and the peers that are slow to build, as far as the time goes.

    What the first call did not come to is made up for: the tests first, and rows.
    """
    use_tuned(call.path)
    missing = call.without(CHEAP)
    if checks.unfinished(call.kept["tests"]):
        call.check(keep=_expected(CHEAP, missing))
    call.compile_ahead(ahead.of_the_tuner, keep=0.0)
    call.tune()
    with Worker() as worker:
        call.go_through(CHEAP, worker, missing)
        call.go_through(COMPILE, worker)
        call.profile(worker)
        call.go_through(AUTOTUNE, worker)


PARTS = {FIRST: first, SECOND: second}


def start(part: str, cases: Sequence[Case], budget: Budget) -> Call:
    """The call, which goes on with what an earlier one found where it is the second."""
    found = machine.describe()
    path = results.file_for(found["name"], results.folder())
    kept: dict[str, Any] = {}
    if part == SECOND:
        earlier, why = results.earlier(path.name, found)
        kept = earlier or {}
        print(f"goes on with {why}" if earlier else f"starts anew: {why}", flush=True)
    kept |= {"machine": found}
    kept.setdefault("date", datetime.now(UTC).isoformat(timespec="seconds"))
    kept["clocks_before"] = machine.nvidia_smi()
    call = Call(part, cases, kept, path, budget)
    call.say(f"{found['name']}, the {part} call")
    return call
