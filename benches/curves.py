"""How the gain grows with the batch, the hidden width and the threads: docs/growth.png."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.shapes import Shape

from .machine import THREADS, describe
from .pairs import block_median
from .works import Case, eager, fused

PICTURE = Path("docs") / "growth.png"
_SECONDS = 0.15


def _times(shape: Shape, threads: int) -> tuple[float, float]:
    """Seconds of forward + backward, eager and ours: the lesser of two blocks each, in turn."""
    torch.set_num_threads(threads)
    case = Case("forward+backward", shape, torch.float32)
    plain, ours = eager(case), fused(case)
    blocks = [(block_median(plain, _SECONDS), block_median(ours, _SECONDS)) for _ in range(2)]
    torch.set_num_threads(THREADS)
    return min(b[0] for b in blocks), min(b[1] for b in blocks)


def draw() -> Path:
    from matplotlib.figure import Figure

    batches = [1, 4, 16, 64, 256, 1024, 4096]
    widths = [16, 64, 256, 1024, 4096]
    panels = [
        ("batch (x 256 x 256 x 64)", batches, [(Shape(n, 256, 256, 64), THREADS) for n in batches]),
        ("hidden features (64 x 256 x h x 64)", widths,
         [(Shape(64, 256, n, 64), THREADS) for n in widths]),
        ("threads (256 x 512 x 512 x 512)", list(range(1, THREADS + 1)),
         [(Shape(256, 512, 512, 512), n) for n in range(1, THREADS + 1)]),
    ]  # fmt: skip
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (title, values, points) in zip(axes, panels, strict=True):
        measured = [_times(shape, threads) for shape, threads in points]
        rates = [Case("forward+backward", s, torch.float32).operations for s, _ in points]
        for index, (label, colour) in enumerate((("torch eager", "#8a93a0"), ("fused", "#d1495b"))):
            gflops = [work / t[index] / 1e9 for work, t in zip(rates, measured, strict=True)]
            axis.plot(values, gflops, marker="o", label=label, color=colour)
        for value, (plain, ours), work in zip(values, measured, rates, strict=True):
            axis.annotate(
                f"{plain / ours:.1f}x",
                (value, work / ours / 1e9),
                textcoords="offset points",
                xytext=(0, 7),
                ha="center",
                fontsize=8,
            )
        if len(values) > 3:
            axis.set_xscale("log", base=2)
        axis.set_xticks(values, [str(v) for v in values])
        axis.margins(y=0.12)
        axis.set(xlabel=title, ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("GFLOP/s, forward + backward")
    axes[0].legend()
    machine = describe()
    figure.suptitle(
        f"float32, {machine['processor']}, {machine['instruction_set']}, torch {machine['torch']}",
        fontsize=10,
    )
    figure.savefig(PICTURE, dpi=110)
    return PICTURE
