"""Correctness before speed: exact integers, the GPU tests, and compute-sanitizer where it is."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .children import Child
from .results import log_for

_SANITIZER_SECONDS = 90.0
_FAULTS = 9  # the exit status that the sanitizer is asked for
_SHOWN = 20
NOT_RUN: dict[str, Any] = {
    "passed": None,
    "summary": "not run",
    "failures": [],
    "failure_count": 0,
    "smoke": {"passed": None, "summary": "not run", "failures": []},
    "sanitizer": {"passed": None, "lines": ["not run"]},
}


def command_of_tests() -> list[str]:
    """Without the suite's conftest, which needs more than a GPU machine has; parallel if it can.

    A warning of the machine's software is no fault of the kernels: importing Inductor of torch 2.11
    warns, and with warnings as errors no figure of the run would count.
    """
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "--durations=15", "-W"]
    command += ["default", "-p", "no:cacheprovider"]
    if find_spec("xdist") is not None:
        command += ["-p", "xdist", "-n", str(min(12, os.cpu_count() or 1))]
    return [*command, "--confcutdir=tests/cuda", "tests/cuda"]


def _failed(lines: list[str]) -> list[str]:
    """A line for each test that failed: the one of the summary, else the one as it ran."""
    found: dict[str, str] = {}
    for line in lines:
        one = re.search(r"\b(?:FAILED|ERROR)\s+(tests/\S+)|^(tests/\S+) (?:FAILED|ERROR)\b", line)
        if one is not None:
            found[one[1] or one[2]] = line[:300]
        elif line.startswith(("FAILED", "ERROR")):
            found[line] = line[:300]
    return list(found.values())


def judged_tests(status: int | None, lines: list[str], seconds: float) -> dict[str, Any]:
    """``passed`` is ``None`` where they were stopped before one failed."""
    failures = _failed(lines)
    summary = next((line for line in reversed(lines) if line.strip()), "no output").strip("= ")
    passed: bool | None = status == 0
    if status is None:
        passed = False if failures else None
        count = sum(" PASSED" in line for line in lines)
        summary = (
            f"stopped after {seconds:.0f} s: {count} passed, {len(failures)} failed until then"
        )
    return {
        "passed": passed,
        "summary": summary,
        "failures": failures[:_SHOWN],
        "failure_count": len(failures),
    }


def judged_smoke(status: int | None, lines: list[str]) -> dict[str, Any]:
    """``passed`` is ``None`` where it was stopped before one failed."""
    failures = [line[:300] for line in lines if "FAILED" in line]
    passed = None if status is None and not failures else status == 0
    last = lines[-1] if lines else "no output"
    summary = last if status is not None else f"stopped; the last line: {last}"
    return {"passed": passed, "summary": summary, "failures": failures[:_SHOWN]}


def judged_sanitizer(status: int | None, lines: list[str]) -> dict[str, Any]:
    """``passed`` is ``None`` where the tool could not say: not there, too slow, no such device."""
    passed = {0: True, _FAULTS: False}.get(status if status is not None else -1)
    told = [line for line in lines if line.startswith("=========")]
    return {"passed": passed, "status": status, "lines": (told or lines)[-_SHOWN:]}


def _smoke(results: Path) -> Child:
    return Child([sys.executable, "-m", "benches.gpu.smoke"], log_for(results, "smoke.log"))


def _tests(results: Path) -> Child:
    # Plugins that happen to be installed warn, and a warning is an error here.
    disabled = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return Child(command_of_tests(), log_for(results, "tests.log"), **disabled)


def _sanitizer(results: Path) -> Child | None:
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return None
    command = [tool, "--tool", "memcheck", "--error-exitcode", str(_FAULTS)]
    return Child(
        [*command, sys.executable, "-m", "benches.gpu.one_step"],
        log_for(results, "sanitizer.log"),
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",  # else it knows only the allocator's large blocks
    )


def run(results: Path, seconds: float) -> dict[str, Any]:
    """All side by side, for ``seconds`` at most; what they found. Their logs lie by ``results``."""
    began = time.monotonic()

    def left(most: float) -> float:
        return began + min(most, seconds) - time.monotonic()

    with ExitStack() as stack:
        smoke, tests = (stack.enter_context(start(results)) for start in (_smoke, _tests))
        sanitizer = _sanitizer(results)
        if sanitizer is not None:
            stack.enter_context(sanitizer)
        smoked = judged_smoke(smoke.finish(left(seconds)), smoke.lines())
        found = judged_tests(tests.finish(left(seconds)), tests.lines(), seconds)
        found |= {"smoke": smoked, "sanitizer": {"passed": None, "lines": ["not on the PATH"]}}
        if sanitizer is not None:
            status = sanitizer.finish(left(_SANITIZER_SECONDS))
            found["sanitizer"] = judged_sanitizer(status, sanitizer.lines())
    return found


def unfinished(tests: dict[str, Any]) -> bool:
    """Whether another run might still make the figures trustworthy."""
    return tests["passed"] is None or tests["smoke"]["passed"] is None


def trustworthy(tests: dict[str, Any]) -> bool:
    """Whether the figures of this run may be believed."""
    exact = bool(tests["passed"]) and bool(tests["smoke"]["passed"])
    return exact and tests["sanitizer"]["passed"] is not False
