"""Figures that need two measurements side by side: what the fused store, a second thread, the
recompute mode and a busy neighbour cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from tests.shapes import BENCH_SHAPES, Shape
from twolayer_kernels import FusedTwoLayer, TwoLayerNet
from twolayer_kernels.backends.cpu import _cpu

from .machine import THREADS
from .works import Case, eager, fused

MIDDLE, LARGE = BENCH_SHAPES[1], BENCH_SHAPES[2]
RECOMPUTE_SHAPE = Shape(16384, 256, 4096, 256)


def block_median(call: Callable[[], object], seconds: float) -> float:
    """Seconds a call, the median of one block, the first fifth of it dropped."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times[len(times) // 5 :])


def ratio(
    first: Callable[[], object], second: Callable[[], object], blocks: int = 7, seconds: float = 0.2
) -> float:
    """Time of ``first`` over time of ``second``: the median over pairs of neighbouring blocks."""
    return median(
        block_median(first, seconds) / block_median(second, seconds) for _ in range(blocks)
    )


def control() -> float:
    """Two copies of plain torch against each other: how far 1.00 can be believed."""
    case = Case("forward+backward", MIDDLE, torch.float32)
    return ratio(eager(case), eager(case), seconds=0.3)


def fused_store() -> float:
    """Bias and ReLU in the store, against the bare product of the same kernel."""
    batch, in_features, hidden_features, _ = MIDDLE
    x, w = torch.randn(batch, in_features), torch.randn(hidden_features, in_features)
    b, a = torch.randn(hidden_features), torch.empty(batch, hidden_features)
    return ratio(
        lambda: _cpu.linear_relu_forward(THREADS, x, w, b, a),
        lambda: _cpu.matmul(THREADS, x, w.T, a),
    )


def masked_store() -> float:
    """Mask and bias gradient in the store, against the bare product of the same kernel."""
    batch, in_features, hidden_features, out_features = MIDDLE
    x, a = torch.randn(batch, in_features), torch.randn(batch, hidden_features).relu_()
    w1, w2 = torch.randn(hidden_features, in_features), torch.randn(out_features, hidden_features)
    grad_y, grad_b1 = torch.randn(batch, out_features), torch.empty(hidden_features)
    dh = torch.empty(batch, hidden_features)
    none = (None,) * 3
    return ratio(
        lambda: _cpu.two_layer_backward(THREADS, grad_y, x, w1, w2, None, a, *none, grad_b1, None),
        lambda: _cpu.matmul(THREADS, grad_y, w2, dh),
    )


def second_thread() -> float:
    """Time of forward + backward of the large shape on one thread over that on two."""
    call = fused(Case("forward+backward", LARGE, torch.float32))

    def on(threads: int) -> Callable[[], object]:
        def run() -> None:
            torch.set_num_threads(threads)
            call()

        return run

    result = ratio(on(1), on(2), blocks=3, seconds=1.0)
    torch.set_num_threads(THREADS)
    return result


def _rate(call: Callable[[], object], seconds: float) -> float:
    call()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        call()
        calls += 1
    return calls / (time.perf_counter() - start)


def busy_neighbour() -> float:
    """Rate of the middle shape with one core kept busy by another process, over the idle rate.

    Calls per second over all of a block, so that the slow ones count in full.
    """
    call = fused(Case("forward+backward", MIDDLE, torch.float32))
    idle = _rate(call, 1.0)
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        busy = _rate(call, 3.0)
    finally:
        neighbour.kill()
        neighbour.wait()
    return busy / idle


_PEAK_MEMORY = """
import re, sys
from pathlib import Path
from benches.pairs import recompute_step


def status(field):
    text = Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+)", text)[1])


step = recompute_step(sys.argv[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
before = status("VmRSS")
step()
print((status("VmHWM") - before) * 1024)
"""


def recompute_step(kind: str) -> Callable[[], None]:
    """One step of ``eager``, ``saving`` or ``recompute`` at the shape of the recompute mode."""
    batch, in_features, hidden_features, out_features = RECOMPUTE_SHAPE
    torch.manual_seed(0)
    net = TwoLayerNet(in_features, hidden_features, out_features)
    model: torch.nn.Module = net
    if kind != "eager":
        model = FusedTwoLayer.from_linears(net.linear1, net.linear2, recompute=kind == "recompute")
    x, grad_y = torch.randn(batch, in_features), torch.randn(batch, out_features)

    def step() -> None:
        model.zero_grad()
        model(x).backward(grad_y)

    return step


def peak_memory(kind: str) -> int:
    """Bytes that one step adds to the memory of a fresh process at its peak; Linux only."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK_MEMORY, kind],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": str(THREADS)},
    )
    return int(done.stdout)


def recompute_time() -> float:
    """Time of a step that computes the activation again over that of one that keeps it."""
    return ratio(recompute_step("recompute"), recompute_step("saving"), blocks=3, seconds=1.0)


def measure() -> dict[str, float]:
    return {
        "control": control(),
        "fused store": fused_store(),
        "masked store": masked_store(),
        "second thread": second_thread(),
        "recompute memory": peak_memory("recompute") / peak_memory("eager"),
        "recompute time": recompute_time(),
        "busy neighbour": busy_neighbour(),
    }
