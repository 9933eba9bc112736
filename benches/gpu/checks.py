"""Correctness before speed: the GPU tests, and compute-sanitizer where it is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_TESTS_SECONDS = 200
_SANITIZER_SECONDS = 90
_FAULTS = 9  # the exit status that the sanitizer is asked for
_SHOWN = 20


def command_of_tests() -> list[str]:
    """Without the suite's conftest, which needs more than a GPU machine has; parallel if it can.

    A warning of the machine's software is no fault of the kernels: importing Inductor of torch 2.11
    warns, and with warnings as errors no figure of the run would count.
    """
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-W", "default"]
    command += ["-p", "no:cacheprovider"]
    if find_spec("xdist") is not None:
        command += ["-p", "xdist", "-n", str(min(12, os.cpu_count() or 1))]
    return [*command, "--confcutdir=tests/cuda", "tests/cuda"]


def _finish(process: subprocess.Popen[str], seconds: float) -> tuple[int | None, list[str]]:
    """Exit status, ``None`` where it had to be stopped, and the lines of its output."""
    try:
        text, _ = process.communicate(timeout=seconds)
        return process.returncode, text.splitlines()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
        text, _ = process.communicate()
        return None, text.splitlines()


def _start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=_ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def judged_tests(status: int | None, lines: list[str]) -> dict[str, Any]:
    summary = next((line for line in reversed(lines) if line.strip()), "no output")
    if status is None:
        summary = f"stopped after {_TESTS_SECONDS} s; the last line: {summary}"
    failures = [line[:300] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {
        "passed": status == 0,
        "summary": summary.strip("= "),
        "failures": failures[:_SHOWN],
        "failure_count": len(failures),
    }


def judged_sanitizer(status: int | None, lines: list[str]) -> dict[str, Any]:
    """``passed`` is ``None`` where the tool could not say: not there, too slow, no such device."""
    passed = {0: True, _FAULTS: False}.get(status if status is not None else -1)
    told = [line for line in lines if line.startswith("=========")]
    return {"passed": passed, "status": status, "lines": (told or lines)[-_SHOWN:]}


def run(sanitize: bool = True) -> dict[str, Any]:
    """Both at once; what they found."""
    tool = shutil.which("compute-sanitizer") if sanitize else None
    # Plugins that happen to be installed warn, and a warning is an error here.
    tests = _start(command_of_tests(), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    sanitizer = None
    if tool is not None:
        command = [tool, "--tool", "memcheck", "--error-exitcode", str(_FAULTS)]
        sanitizer = _start(
            [*command, sys.executable, "-m", "benches.gpu.one_step"],
            PYTORCH_NO_CUDA_MEMORY_CACHING="1",  # else it knows only the allocator's large blocks
        )
    found = judged_tests(*_finish(tests, _TESTS_SECONDS))
    if sanitizer is None:
        found["sanitizer"] = {"passed": None, "lines": ["compute-sanitizer is not on the PATH"]}
    else:
        found["sanitizer"] = judged_sanitizer(*_finish(sanitizer, _SANITIZER_SECONDS))
    return found


def trustworthy(tests: dict[str, Any]) -> bool:
    """Whether the figures of this run may be believed."""
    return bool(tests["passed"]) and tests["sanitizer"]["passed"] is not False
