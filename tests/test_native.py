"""What stands below the kernels, by C++ programs.

Threads with OpenMP beside the pool and with the pool alone, what is done about late ones, and what
the system tells of processors.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def check(folder: Path, name: str, sources: list[str], flags: list[str]) -> None:
    """Builds and runs the program tests/native/name.cpp with these sources of csrc."""
    program = folder / name
    subprocess.run(
        [
            *("c++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", *flags),
            *(f"-I{ROOT / 'csrc'}", ROOT / "tests" / "native" / f"{name}.cpp"),
            *(ROOT / "csrc" / f"{source}.cpp" for source in sources),
            *("-o", program),
        ],
        check=True,
        timeout=120,
    )
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flags", [["-fopenmp"], []], ids=["openmp", "pool alone"])
def test_threads(tmp_path, flags):
    check(tmp_path, "threads", ["threads", "late", "pool", "board", "processors"], flags)


def test_late_threads(tmp_path):
    check(tmp_path, "late", ["late"], [])


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="Linux keeps no account")
def test_processors(tmp_path):
    check(tmp_path, "processors", ["processors", "board"], [])
