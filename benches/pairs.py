"""Figures that need two measurements side by side: what the fused store, a second thread, the
recompute mode and busy neighbours cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch

from tests.shapes import BENCH_SHAPES, Shape
from twolayer_kernels import FusedTwoLayer, TwoLayerNet
from twolayer_kernels.backends.cpu import _cpu

from .machine import THREADS
from .works import Case, eager, fused

TUTORIAL, MIDDLE, LARGE = BENCH_SHAPES[:3]
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


def narrow_store() -> float:
    """Every step of the epilogue on a product whose sums are short, against the bare one.

    Guards the tile's sums staying in registers on their way out.
    """
    M, N, K = 192, 512, 64
    a, b, c, mask = torch.randn(M, K), torch.randn(K, N), torch.empty(M, N), torch.randn(M, N)
    bias, sums = torch.randn(N), torch.zeros(N, dtype=torch.float64)
    return ratio(
        lambda: _cpu.matmul(1, a, b, c, col_bias=bias, relu=True, mask=mask, col_sum=sums),
        lambda: _cpu.matmul(1, a, b, c),
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


def call_seconds(call: Callable[[], object], seconds: float) -> list[float]:
    """Of each call, in order of length."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)


def late_calls() -> float:
    """Share of calls that take over 1.6 times the 5th percentile, on an idle machine."""
    times = call_seconds(fused(Case("forward+backward", MIDDLE, torch.float32)), 10.0)
    return sum(t > 1.6 * times[len(times) // 20] for t in times) / len(times)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    neighbours = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)
    ]
    try:
        time.sleep(0.2)
        yield
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def busy_neighbour(shape: Shape) -> tuple[float, float]:
    """Beside a process that keeps a core busy: rate of the idle one; what a late call lost, in ms.

    The rate is over all of a block, so that the slow calls count in full; a late call is the 99th
    percentile, less the idle median.
    """
    call = fused(Case("forward+backward", shape, torch.float32))
    idle = call_seconds(call, 1.0)
    with busy_processes(1):
        busy = call_seconds(call, 3.0)
    rate = (sum(idle) / len(idle)) / (sum(busy) / len(busy))
    return rate, (busy[len(busy) * 99 // 100] - median(idle)) * 1e3


def crowd(shape: Shape) -> float:
    """Beside 12 busy processes: time on the default threads over that on one."""
    call = fused(Case("forward+backward", shape, torch.float32))

    def mean(threads: int) -> float:
        torch.set_num_threads(threads)
        times = call_seconds(call, 1.5)
        return sum(times) / len(times)

    with busy_processes(12):
        result = median(mean(THREADS) / mean(1) for _ in range(3))
    torch.set_num_threads(THREADS)
    return result


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
    figures = {
        "control": control(),
        "fused store": fused_store(),
        "masked store": masked_store(),
        "narrow store": narrow_store(),
        "second thread": second_thread(),
        "recompute memory": peak_memory("recompute") / peak_memory("eager"),
        "recompute time": recompute_time(),
        "late calls": late_calls(),
    }
    for name, shape in (("tutorial", TUTORIAL), ("middle", MIDDLE)):
        figures[f"busy rate, {name}"], figures[f"busy late, {name}"] = busy_neighbour(shape)
        figures[f"crowd, {name}"] = crowd(shape)
    return figures
