"""What a call on one row does not do: it wakes no thread and allocates nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

_ONE_ROW = """
import ctypes, os, re, sys, time
from pathlib import Path
import numpy as np
from twolayer_kernels import _cpu

shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
shim.count_allocations_of.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if "_cpu." in line]
extension = [int(a, 16) for line in (maps[0], maps[-1]) for a in line.split()[0].split("-")]

new = lambda *shape: np.ones(shape, np.float32)
wide = [new(64, 900), new(200, 900), None, new(64, 200)]
_cpu.linear_relu_forward(2, *wide)  # the threads are there
x, w1, w2, b1, b2 = new(1, 64), new(64, 64), new(4, 64), new(64), new(4)
a, y, grad_y = new(1, 64), new(1, 4), new(1, 4)
gradients = [new(*t.shape) for t in (x, w1, w2, b1, b2)]


def switches():
    statuses = Path("/proc/self/task").glob("*/status")
    return {
        s.parent.name: re.search(r"\\nvoluntary_ctxt_switches:\\s+(\\d+)", s.read_text())[1]
        for s in statuses if s.parent.name != str(os.getpid())
    }


def call():
    _cpu.two_layer_forward(2, x, w1, w2, b1, b2, a, y)
    _cpu.two_layer_forward(2, x, w1, w2, b1, b2, None, y)
    _cpu.two_layer_backward(2, grad_y, x, w1, w2, b1, a, *gradients)


call()
time.sleep(0.2)  # idle threads fall asleep
before = _cpu.times_woken(), switches()
shim.count_allocations_of(extension[0], extension[-1])
for _ in range(100):
    call()
allocations = shim.allocations_counted()
print(allocations, (_cpu.times_woken(), switches()) == before, len(before[1]))
shim.count_allocations_of(extension[0], extension[-1])
_cpu.linear_relu_forward(2, new(700, 9), new(70_000, 9), None, new(700, 70_000))
wide = [new(600, 9), new(30_000, 9), new(1, 30_000)]
_cpu.two_layer_forward(2, *wide, None, None, None, new(600, 1))
print(shim.allocations_counted(), _cpu.times_woken() > before[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="preloads a library and reads /proc")
def test_one_row_wakes_no_thread_and_allocates_nothing(tmp_path):
    shim = tmp_path / "allocations.so"
    source = ROOT / "tests" / "native" / "allocations.cpp"
    subprocess.run(["c++", "-O1", "-shared", "-fPIC", source, "-o", shim], check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-c", _ONE_ROW],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"LD_PRELOAD": str(shim)},
    )
    assert done.returncode == 0, done.stderr
    small, large = done.stdout.splitlines()
    allocations, asleep, threads = small.split()
    # One each of 300 calls: pybind11's list of the arguments, where they are more than six.
    assert (allocations, asleep) == ("300", "True")
    assert int(threads) >= 1
    # And what the counts cannot miss: scratch in the second of two calls, and a sleeper woken.
    allocations, woken = large.split()
    assert int(allocations) > 2
    assert woken == "True"
