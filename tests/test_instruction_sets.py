"""Every instruction set that this machine can run passes the tiers, in a process of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from twolayer_kernels import _cpu

ROOT = Path(__file__).parent.parent
KNOWN = ("amx", "avx512_bf16", "avx512", "avx2", "baseline")

# The tests with the most reach for their time, on the cpu backend alone.
SELECTED = [
    "test_exact.py::test_two_layer_over_shapes",
    "test_exact.py::test_shapes_of_several_blocks",
    "test_exact.py::test_missing_biases",
    "test_exact.py::test_layouts_of_all_tensors",
    "test_budget.py::test_on_the_benches_shapes",
    "test_autograd.py::test_nan_and_infinity_spread_as_in_torch",
    "test_autograd.py::test_nan_stays_nan_and_its_gradient_passes",
    "test_autograd.py::test_the_gradient_at_exactly_0_is_0",
    "test_threads.py::test_dealt_samples_have_the_same_bits_for_any_thread_count",
    "test_threads.py::test_shares_of_the_samples_have_the_same_bits_for_any_thread_count",
]


def run(*arguments: str, isa: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"TWOLAYER_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def imported(isa: str) -> subprocess.CompletedProcess[str]:
    code = "from twolayer_kernels import _cpu; print(_cpu.instruction_set())"
    return run("-c", code, isa=isa)


def test_the_list_is_best_first_and_ends_with_the_baseline():
    available = _cpu.instruction_sets()
    assert available == [name for name in KNOWN if name in available]
    assert available[-1] == "baseline"


def test_the_matrix_unit_is_used_where_linux_shows_it():
    info = Path("/proc/cpuinfo")
    if not info.exists():
        pytest.skip("Linux says what a processor has")
    shown = {"amx_tile", "amx_bf16", "avx512_bf16"} <= set(info.read_text().split())
    # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA), which a sandbox may refuse
    permitted = shown and ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0
    assert ("amx" in _cpu.instruction_sets()) == permitted


def test_the_best_one_runs_unless_one_is_named():
    assert imported("").stdout.strip() == _cpu.instruction_sets()[0]
    assert _cpu.instruction_set() == (os.environ.get("TWOLAYER_ISA") or _cpu.instruction_sets()[0])


@pytest.mark.parametrize(
    "isa", [name for name in _cpu.instruction_sets() if name != _cpu.instruction_set()]
)
def test_the_tiers_pass_on_the_ones_that_this_process_does_not_run(isa):
    selected = [f"tests/{name}" for name in SELECTED]
    done = run(
        "-m",
        "pytest",
        *selected,
        "-k",
        "cpu or blocks or samples",
        "-p",
        "no:cacheprovider",
        isa=isa,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert f"instruction set {isa} " in done.stdout


@pytest.mark.parametrize("isa", ["sse9", "AVX2", "avx2 "])
def test_an_unknown_one_is_refused(isa):
    done = imported(isa)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(("ImportError", "RuntimeError"))
    for part in ("TWOLAYER_ISA", ", ".join(_cpu.instruction_sets()), repr(isa)):
        assert part in last


def test_one_that_this_machine_lacks_is_refused():
    missing = [name for name in KNOWN if name not in _cpu.instruction_sets()]
    if not missing:
        pytest.skip("this machine runs every instruction set there is a kernel for")
    done = imported(missing[0])
    assert done.returncode != 0
    assert "TWOLAYER_ISA" in done.stderr
