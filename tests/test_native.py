"""The threads' contract, by a C++ program: with OpenMP beside the pool, and with the pool alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ["threads", "pool", "board", "processors"]


@pytest.mark.parametrize("flags", [["-fopenmp"], []], ids=["openmp", "pool alone"])
def test_threads(tmp_path, flags):
    program = tmp_path / "threads"
    sources = [ROOT / "csrc" / f"{name}.cpp" for name in SOURCES]
    subprocess.run(
        [
            *("c++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", *flags),
            *(f"-I{ROOT / 'csrc'}", ROOT / "tests" / "native" / "threads.cpp", *sources),
            *("-o", program),
        ],
        check=True,
        timeout=120,
    )
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
