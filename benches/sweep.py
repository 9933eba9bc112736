"""``python -m benches.sweep``: random shapes and dtypes against torch eager and ``torch.compile``.

The shapes follow from ``--seed``. Prints the slowest rows, and the worst and the geometric mean of
the ratios to the faster of the two, also by dtype: torch's own float16 is very slow on processors
without instructions for it. The exit status is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import random
import sys
import time
import warnings
from collections.abc import Callable
from statistics import geometric_mean, median
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import linear

from tests.shapes import Shape
from twolayer_kernels.functional import two_layer

from . import machine
from .works import Call

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LARGEST = 4096  # of batch and of every width
MOST_OPERATIONS = 4e9  # of a forward; what is larger behaves as the benches' large shape
# Goals: the worst ratio and the geometric mean.
GOALS = {"forward + backward": (0.97, 1.8), "inference": (0.97, 2.2)}
BLOCKS = 5
BLOCK_SECONDS = 0.02
MIN_CALLS = 3


class Row(NamedTuple):
    work: str
    shape: Shape
    dtype: torch.dtype
    seconds: dict[str, float]

    @property
    def ratio(self) -> float:
        return min(t for peer, t in self.seconds.items() if peer != "fused") / self.seconds["fused"]


def draw(seed: int, count: int) -> list[tuple[Shape, torch.dtype]]:
    """Sizes even on a logarithmic scale, so that small and large ones are as frequent."""
    generator = random.Random(seed)
    cases: list[tuple[Shape, torch.dtype]] = []
    while len(cases) < count:
        shape = Shape(*(round(math.exp(generator.uniform(0, math.log(LARGEST)))) for _ in range(4)))
        batch, in_features, hidden, out = shape
        if 2 * batch * hidden * (in_features + out) <= MOST_OPERATIONS:
            cases.append((shape, generator.choice(DTYPES)))
    return cases


def plain(x: Tensor, w1: Tensor, w2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    return linear(torch.relu(linear(x, w1, b1)), w2, b2)


def fused(x: Tensor, w1: Tensor, w2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    return two_layer(x, w1, w2, b1, b2, backend="cpu")


def calls(
    shape: Shape, dtype: torch.dtype, function: Callable[..., Tensor], wide: bool = False
) -> dict[str, Call]:
    """The works of one peer on numbers of the dtype, in float64 where ``wide``."""
    batch, in_features, hidden, out = shape
    generator = torch.Generator().manual_seed(0)

    def new(*size: int) -> Tensor:
        values = torch.randn(*size, generator=generator) / (size[-1] ** 0.5 if len(size) > 1 else 1)
        return values.to(dtype).double() if wide else values.to(dtype)

    x = new(batch, in_features)
    w1, w2, b1, b2 = new(hidden, in_features), new(out, hidden), new(hidden), new(out)
    grad_y = new(batch, out)
    parameters = [t.clone().requires_grad_() for t in (w1, w2, b1, b2)]

    def inference() -> list[Tensor]:
        with torch.inference_mode():
            return [function(x, w1, w2, b1, b2)]

    def forward_backward() -> list[Tensor]:
        return list(torch.autograd.grad(function(x, *parameters), parameters, grad_y))

    return {"inference": inference, "forward + backward": forward_backward}


def block(call: Call) -> float:
    """Seconds a call, the median of one block without its first fifth."""
    times: list[float] = []
    end = time.perf_counter() + BLOCK_SECONDS
    while time.perf_counter() < end or len(times) < MIN_CALLS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times[len(times) // 5 :])


def check_as_close_as_plain(
    built: dict[str, dict[str, Call]], exact: dict[str, Call], work: str
) -> None:
    """No figure on a wrong result. Torch errs too where ReLU's mask hangs on a rounding."""
    wanted = exact[work]()

    def errors(name: str) -> list[float]:
        parts = zip(built[name][work](), wanted, strict=True)
        return [float((p.double() - w).norm() / w.norm().clamp_min(1e-30)) for p, w in parts]

    for ours, theirs in zip(errors("fused"), errors("eager"), strict=True):
        assert ours <= 4 * theirs + 1e-6, f"wrong by {ours:.1e} of its norm, torch by {theirs:.1e}"


def measure(shape: Shape, dtype: torch.dtype, peers: dict[str, Callable[..., Tensor]]) -> list[Row]:
    built = {name: calls(shape, dtype, function) for name, function in peers.items()}
    exact = calls(shape, dtype, plain, wide=True)
    rows = []
    for work in GOALS:
        check_as_close_as_plain(built, exact, work)
        blocks: dict[str, list[float]] = {name: [] for name in built}
        for turn in range(BLOCKS):
            for name in list(built)[:: 1 if turn % 2 == 0 else -1]:
                blocks[name].append(block(built[name][work]))
        rows.append(Row(work, shape, dtype, {name: median(t) for name, t in blocks.items()}))
    return rows


def show(rows: list[Row], slowest: int) -> bool:
    """Prints the slowest rows and the figures; whether the goals are reached."""
    console = Console(width=160)
    table = Table(title="The slowest rows", title_justify="left")
    peers = list(rows[0].seconds)
    for column in ("work", "shape", "dtype"):
        table.add_column(column)
    for column in (*(f"{peer}, us" for peer in peers), "ratio"):
        table.add_column(column, justify="right")
    for row in sorted(rows, key=lambda row: row.ratio)[:slowest]:
        times = [f"{row.seconds[peer] * 1e6:.1f}" for peer in peers]
        dtype = str(row.dtype).removeprefix("torch.")
        table.add_row(row.work, str(row.shape), dtype, *times, f"{row.ratio:.2f}")
    console.print(table)
    reached = True
    for work, (worst_goal, mean_goal) in GOALS.items():
        ratios = [row.ratio for row in rows if row.work == work]
        worst, mean = min(ratios), geometric_mean(ratios)
        below = sum(ratio < 1 for ratio in ratios)
        reached &= worst >= worst_goal and mean >= mean_goal
        console.print(
            f"{work}: worst {worst:.2f} (goal {worst_goal}), geometric mean {mean:.2f}"
            f" (goal {mean_goal}), {below} of {len(ratios)} below 1"
        )
        for dtype in DTYPES:
            some = [row.ratio for row in rows if row.work == work and row.dtype == dtype]
            if some:
                name = str(dtype).removeprefix("torch.")
                console.print(f"  {name}: worst {min(some):.2f}, mean {geometric_mean(some):.2f}")
    return reached


def keep_memory() -> None:
    """Has malloc keep what is freed.

    A result's fresh pages cost more than its arithmetic (1.2 us for 4 KB on a virtual machine), and
    which side gets fresh ones at every call hangs on what happens to lie at the end of the heap.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, MOST = -1, -3, 32 << 20
        assert libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
        assert libc.mallopt(M_MMAP_THRESHOLD, MOST)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.sweep", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the shapes and dtypes")
    parser.add_argument("--count", type=int, default=200, help="cases (default: 200)")
    parser.add_argument("--slowest", type=int, default=20, help="rows to print (default: 20)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers' own
    keep_memory()
    torch.set_num_threads(machine.THREADS)
    peers: dict[str, Callable[..., Tensor]] = {"fused": fused, "eager": plain}
    if not arguments.no_compile:
        # Sizes as variables: a few compilations a dtype, not one a case.
        # The modes of autograd and every combination of sizes that are 1 are compiled apart.
        torch._dynamo.config.recompile_limit = 1000
        peers["compile"] = torch.compile(plain, dynamic=True)
    rows = []
    for shape, dtype in draw(arguments.seed, arguments.count):
        rows += measure(shape, dtype, peers)
    return 0 if show(rows, arguments.slowest) else 1


if __name__ == "__main__":
    sys.exit(main())
