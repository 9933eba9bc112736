"""``fit`` beside the loops that people write: torch eager and compiled, NumPy by hand, JAX.

``python -m benches.fitting`` prints this table alone, or the rows whose names hold an argument.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import mse_loss

from tests.shapes import Shape
from twolayer_kernels import FusedTwoLayer, TwoLayerNet, fit

from .machine import THREADS, describe, peaks
from .timing import SETTLE_SECONDS

TUTORIAL = Shape(64, 1000, 100, 10)
BLOCKS = 5
BLOCK_SECONDS = 0.3
CHECKED_STEPS = 10
PICTURE = Path("docs") / "fit.png"


class Work(NamedTuple):
    """Steps on one batch, squared error in the mean; goals are times of a peer over ours."""

    shape: Shape
    optimizer: str
    goals: dict[str, float]
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        return f"{self.shape}, {self.optimizer}, {str(self.dtype).removeprefix('torch.')}"

    @property
    def operations(self) -> int:
        """Of one step's five products; a multiply-add is two."""
        batch, in_features, hidden, out = self.shape
        return 2 * batch * hidden * (2 * in_features + 3 * out)

    def network(self, kind: Callable[..., Any]) -> Any:
        torch.manual_seed(0)
        _, *widths = self.shape
        return kind(*widths).to(self.dtype)

    def data(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(self.shape.batch, self.shape.in_features, generator=generator)
        y = torch.randn(self.shape.batch, self.shape.out_features, generator=generator)
        return x.to(self.dtype), y.to(self.dtype)


WORKS = [
    Work(TUTORIAL, "sgd", {"eager": 4.2, "numpy": 2.8, "jax": 3.0}),
    Work(TUTORIAL, "adam", {"eager": 5.0}),
    Work(Shape(256, 512, 512, 512), "sgd", {"eager": 2.3}),
    Work(Shape(8, 16, 32, 4), "sgd", {"eager": 80}),
    Work(Shape(8, 16, 32, 4), "adam", {"eager": 150}),
    Work(Shape(200, 64, 100, 10), "adam", {"eager": 10, "one thread": 1.6}),
    Work(Shape(64, 64, 256, 10), "adam", {"eager": 8}),
    Work(Shape(64, 64, 256, 10), "adam", {"eager": 5}, torch.bfloat16),
    Work(Shape(64, 64, 256, 10), "adam", {"eager": 5}, torch.float64),
    Work(Shape(200, 24, 8, 2), "sgd", {"eager": 40}),
    Work(Shape(4096, 256, 256, 1), "adam", {"eager": 2}),
    Work(Shape(256, 17, 256, 6), "adam", {"eager": 6}),
]
LR = 1e-4
PEAK_GOAL = 0.8

# A peer takes so many steps and returns the last loss; what it builds is not timed.
Steps = Callable[[int], float]


def ours(work: Work) -> Steps:
    model, (x, y) = work.network(FusedTwoLayer), work.data()
    optimizer = _optimizer(work, model)
    return lambda steps: float(
        fit(model, x, y, steps=steps, optimizer=optimizer, loss="mse_mean")[-1]
    )


def on_one_thread(work: Work) -> Steps:
    steps_of = ours(work)

    def run(steps: int) -> float:
        torch.set_num_threads(1)
        try:
            return steps_of(steps)
        finally:
            torch.set_num_threads(THREADS)

    return run


def _optimizer(work: Work, model: Any, **how: Any) -> torch.optim.Optimizer:
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[work.optimizer]
    return kind(model.parameters(), lr=LR, **how)


def _torch_loop(work: Work, compiled: bool = False, **how: Any) -> Steps:
    model, (x, y) = work.network(TwoLayerNet), work.data()
    optimizer = _optimizer(work, model, **how)
    loss_of: Any = lambda x, y: mse_loss(model(x), y)  # noqa: E731
    update: Any = optimizer.step
    if compiled:
        loss_of, update = torch.compile(loss_of), torch.compile(update)

    def run(steps: int) -> float:
        loss = torch.tensor(0.0)
        for _ in range(steps):
            loss = loss_of(x, y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            update()
        return float(loss)

    return run


def by_hand(work: Work) -> Steps | None:
    """The tutorials' NumPy loop."""
    if work.optimizer != "sgd" or work.dtype == torch.bfloat16:
        return None
    model, (x, y) = work.network(TwoLayerNet), [t.numpy() for t in work.data()]
    first, second = model.linear1, model.linear2
    parameters = (first.weight, first.bias, second.weight, second.bias)
    w1, b1, w2, b2 = (p.detach().numpy() for p in parameters)

    def run(steps: int) -> float:
        loss = 0.0
        for _ in range(steps):
            h = np.maximum(x @ w1.T + b1, 0)
            error = h @ w2.T + b2 - y
            loss = float(np.square(error).mean())
            grad_y = (2 / error.size) * error
            grad_h = (grad_y @ w2) * (h > 0)
            w2[...] -= LR * (grad_y.T @ h)
            b2[...] -= LR * grad_y.sum(0)
            w1[...] -= LR * (grad_h.T @ x)
            b1[...] -= LR * grad_h.sum(0)
        return loss

    return run


def with_jax(work: Work) -> Steps | None:
    """One jitted ``fori_loop``, where JAX is installed."""
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    if work.optimizer != "sgd" or work.dtype != torch.float32:
        return None
    model, (x, y) = work.network(TwoLayerNet), [jnp.asarray(t.numpy()) for t in work.data()]
    start = [jnp.asarray(p.detach().numpy()) for p in model.parameters()]

    def loss_of(p: Any) -> Any:
        w1, b1, w2, b2 = p
        return jnp.square(jnp.maximum(x @ w1.T + b1, 0) @ w2.T + b2 - y).mean()

    @jax.jit
    def loop(steps: int) -> Any:
        def body(_: int, carry: Any) -> Any:
            p, _ = carry
            loss, grads = jax.value_and_grad(loss_of)(p)
            return [q - LR * g for q, g in zip(p, grads, strict=True)], loss

        return jax.lax.fori_loop(0, steps, body, (start, jnp.float32(0)))[1]

    return lambda steps: float(loop(steps))


PEERS: dict[str, Callable[[Work], Steps | None]] = {
    "eager": _torch_loop,
    "eager, foreach": lambda work: _torch_loop(work, foreach=True),
    "eager, fused": lambda work: _torch_loop(work, fused=True),
    "compiled": lambda work: _torch_loop(work, compiled=True),
    "numpy": by_hand,
    "jax": with_jax,
}
# The fastest of torch's loops is what a goal against eager means.
OF_TORCH = ("eager", "eager, foreach", "eager, fused", "compiled")


def _seconds(run: Steps, steps: int) -> float:
    start = time.perf_counter()
    run(steps)
    return (time.perf_counter() - start) / steps


def measure(work: Work, with_compiled: bool = True) -> dict[str, float]:
    """Seconds a step: medians over blocks in which all take turns."""
    runs: dict[str, Steps] = {"fit": ours(work)}
    if "one thread" in work.goals:
        runs["one thread"] = on_one_thread(work)
    for name, make in PEERS.items():
        run = make(work) if with_compiled or name != "compiled" else None
        if run is not None:
            runs[name] = run
    last = {name: run(CHECKED_STEPS) for name, run in runs.items()}
    band = 5e-2 if work.dtype == torch.bfloat16 else 1e-4
    for name, loss in last.items():
        assert abs(loss / last["eager"] - 1) < band, f"{work.name}, {name}: {loss}"
    steps = {name: max(3, int(BLOCK_SECONDS / _seconds(run, 3))) for name, run in runs.items()}
    blocks: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(BLOCKS):
        for name, run in runs.items():
            time.sleep(SETTLE_SECONDS if name in ("numpy", "fit") else 0)
            _seconds(run, max(1, steps[name] // 5))
            blocks[name].append(_seconds(run, steps[name]))
    return {name: median(times) for name, times in blocks.items()}


def side_by_side() -> float:
    """Two fits of the smallest network, one after the other, over both in two Python threads."""
    torch.set_num_threads(1)
    works = [Work(Shape(8, 16, 32, 4), "sgd", {}) for _ in range(2)]
    runs = [ours(work) for work in works]

    def both() -> None:
        threads = [threading.Thread(target=run, args=(100_000,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def in_turn() -> None:
        for run in runs:
            run(100_000)

    ratios = []
    for _ in range(BLOCKS):
        times = []
        for call in (in_turn, both):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    torch.set_num_threads(THREADS)
    return median(ratios)


_FIRST_CALL = """
import time, torch
from twolayer_kernels import FusedTwoLayer, fit
import twolayer_kernels.training
model, x, y = FusedTwoLayer(16, 32, 4), torch.randn(8, 16), torch.randn(8, 4)
start = time.perf_counter()
fit(model, x, y, steps=1, lr=0.1)
print(time.perf_counter() - start)
"""


def first_call() -> float:
    """Seconds of the first call of ``fit`` in a process, besides imports."""

    def once() -> float:
        command = [sys.executable, "-c", _FIRST_CALL]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    return median(once() for _ in range(5))


@contextmanager
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def show(wanted: str = "") -> bool:
    """Prints every row with its goals; whether all are reached."""
    table = Table(title="fit, microseconds a step", title_justify="left")
    for column in ("batch x in x hidden x out", "fit", *OF_TORCH, "numpy", "jax", "goals"):
        table.add_column(column, justify="left" if column[0] in "bg" else "right")
    reached_all = True
    rows = [work for work in WORKS if wanted in work.name]
    with _threads():
        for work in rows:
            times = measure(work)
            told = []
            best = min(times[name] for name in OF_TORCH if name in times)
            for peer, goal in work.goals.items():
                if peer not in times:
                    continue
                figure = (best if peer == "eager" else times[peer]) / times["fit"]
                reached_all &= figure >= goal
                told.append(f"{peer} {figure:.1f} (>= {goal}){'' if figure >= goal else ' missed'}")
            if work.shape == TUTORIAL and work.optimizer == "sgd":
                share = work.operations / times["fit"] / peaks()["float32"]
                reached_all &= share >= PEAK_GOAL
                told.append(
                    f"share of peak {share:.2f} (>= {PEAK_GOAL})"
                    f"{'' if share >= PEAK_GOAL else ' missed'}"
                )
            cells = [f"{1e6 * times[n]:.1f}" if n in times else "-" for n in ("fit", *OF_TORCH)]
            others = [f"{1e6 * times[n]:.1f}" if n in times else "-" for n in ("numpy", "jax")]
            table.add_row(work.name, *cells, *others, "; ".join(told))
        console = Console(width=200)
        console.print(table)
        if not wanted:
            pair, first = side_by_side(), first_call()
            reached_all &= pair >= 1.9 and first <= 5e-3
            console.print(f"two fits in two threads: {pair:.2f} of one after the other (>= 1.9)")
            console.print(f"first call in a process: {1e3 * first:.1f} ms (<= 5)")
            print(f"curves: {draw()}")
    return reached_all


def draw() -> Path:
    """Microseconds a step over width and batch, beside eager and the arithmetic limit."""
    from matplotlib.figure import Figure

    panels = {
        "hidden features (64 x 64 x h x 10)": [Shape(64, 64, h, 10) for h in (8, 32, 128, 512)],
        "batch (b x 64 x 128 x 10)": [Shape(b, 64, 128, 10) for b in (1, 8, 64, 512, 4096)],
    }
    peak = peaks()["float32"]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axis, (title, shapes) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        values = [shape.hidden_features if "hidden" in title else shape.batch for shape in shapes]
        works = [Work(shape, "adam", {}) for shape in shapes]
        measured = [measure(work, with_compiled=False) for work in works]
        for name, colour in (("eager", "#8a93a0"), ("fit", "#d1495b")):
            axis.plot(values, [1e6 * t[name] for t in measured], marker="o", label=name, c=colour)
        floor = [1e6 * work.operations / peak for work in works]
        axis.plot(values, floor, ls=":", c="#30363d", label="multiply-adds alone")
        axis.set(xlabel=title, xscale="log", yscale="log")
        axis.set_xticks(values, [str(v) for v in values])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    figure.axes[0].set_ylabel("microseconds a step, Adam")
    machine = describe()
    figure.suptitle(f"float32, {machine['processor']}, torch {machine['torch']}", fontsize=10)
    figure.savefig(PICTURE, dpi=110)
    return PICTURE


if __name__ == "__main__":
    sys.exit(0 if show(*sys.argv[1:2]) else 1)
