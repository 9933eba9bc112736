"""Measuring a device: which tiles are fast on it, and where our kernels beat torch's.

The result is the table that :mod:`.tiles` and :mod:`.measurements` read in the place of what ships.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import triton
from torch import Tensor, nn

from . import layers, measurements, products, tiles
from .launch import Device, Launch, device_of
from .precision import precision_of
from .tiles import KERNELS, Tile

Seconds = float
Measure = Callable[[Callable[[], object]], Seconds]
Report = Callable[[str], None]
Entries = list[dict[str, Any]]
Written = Callable[[Entries], None]  # told of all entries so far, after each new one

# One product large enough to fill any device; the rate of a tile hardly depends on the size then.
PRODUCT = (4096, 4096, 4096)
# batch, in_features, hidden_features, out_features
NETWORKS: tuple[tuple[int, int, int, int], ...] = tuple(
    (batch, *widths)
    for widths in (
        (1000, 100, 10),
        (64, 64, 4),
        (64, 64, 64),
        (128, 256, 8),
        (256, 256, 256),
        (1024, 4096, 1024),
        (2048, 8192, 2048),
        (4096, 16384, 4096),
    )
    for batch in (64, 1024, 16384)
)
# Whose single products are compared: where fusing has least to win.
LARGE_NETWORKS = ((4096, 1024, 4096, 1024), (8192, 2048, 8192, 2048), (16384, 4096, 16384, 4096))
# What torch's switches say, and the dtypes of the inputs.
MODES = (("16bit", torch.bfloat16), ("tf32", torch.float32), ("tf32x3", torch.float32))


def measure_on_gpu(call: Callable[[], object], rounds: int = 20) -> Seconds:
    """The median time of ``call`` on the device, after warming up."""
    for _ in range(3):
        call()
    event: Any = torch.cuda.Event
    marks = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(rounds)]
    for start, end in marks:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return float(median(start.elapsed_time(end) for start, end in marks)) / 1e3


@contextmanager
def in_precision(name: str) -> Iterator[None]:
    """torch's switches as one of ``MODES`` needs them."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32" if name == "tf32" else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def candidates(kernel: str, precision: str, device: Device) -> list[Tile]:
    """The tiles that ship, and each with other stages, order of tiles or loops."""
    found: dict[Tile, None] = {}
    for tile in tiles.shipped_tiles_for(kernel, precision, device):
        for stages in (tile.how.stages, tile.how.stages - 1, tile.how.stages + 1):
            for group in (tile.group_m, 2 * tile.group_m):
                if stages > 1:
                    how = Launch(tile.how.warps, stages)
                    found[tile._replace(how=how, group_m=group, rate=0.0, source="")] = None
        found[tile._replace(flatten=not tile.flatten, rate=0.0, source="")] = None
    return list(found)


def operands(kernel: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """The product as the kernel meets it in a network: layouts and epilogue."""
    m, n, k = PRODUCT

    def new(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    if kernel == "linear":
        return {"a": new(m, k), "b": new(n, k).T, "bias": new(n), "relu": True}
    if kernel == "dgrad":
        return {"a": new(m, k), "b": new(k, n), "mask": new(m, n), "wants_sums": True}
    return {"a": new(k, m).T, "b": new(k, n)}


@contextmanager
def _reporting(what: str, device: torch.device, report: Report) -> Iterator[None]:
    """Names a failure and goes on, as other tiles or sizes may do better, if the device does.

    Raises:
        RuntimeError: the device itself has failed; every call would, from there on.
    """
    try:
        yield
    except Exception as error:
        report(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def tune_tiles(
    device: torch.device,
    measure: Measure,
    report: Report = lambda line: None,
    written: Written = lambda entries: None,
) -> Entries:
    """The entries of the table of tiles, each with its rate on this device.

    The narrow kernels keep the tiles that ship, and so does a kernel of which no tile ran.
    """
    entries: Entries = []
    m, n, k = PRODUCT
    for precision, dtype in MODES:
        for kernel in KERNELS:
            given: dict[str, Any] = {}
            with _reporting(f"{kernel} {precision}", device, report):
                given = operands(kernel, dtype, device)
            if not given:
                continue
            known = device_of(given["a"])
            rates: list[tuple[float, Tile]] = []
            with in_precision(precision):
                for tile in candidates(kernel, precision, known):
                    with (
                        _reporting(f"{kernel} {precision} {tile[:3]}", device, report),
                        suppress(triton.OutOfResources),
                    ):
                        seconds = measure(partial(layers.product, kernel, **given, tile=tile))
                        rates.append((2 * m * n * k / seconds, tile))
            best = max((rate for rate, _ in rates), default=0.0)
            # The fastest of each size of tile: the smaller ones serve the smaller networks.
            by_block: dict[tuple[int, int], tuple[float, Tile]] = {}
            for rate, tile in sorted(rates, key=lambda pair: pair[0]):
                by_block[tile.block_m, tile.block_n] = (rate, tile)
            for rate, tile in by_block.values():
                tflops = f"{rate / 1e12:.1f} TFLOP/s at {m} x {n} x {k}"
                entries.append(_entry(kernel, precision, known, tile, rate / best, tflops))
                report(f"{kernel} {precision} {tile[:3]}: {tflops}")
            written(entries)
    return entries


def _entry(
    kernel: str, precision: str, device: Device, tile: Tile, rate: float, measured: str
) -> dict[str, Any]:
    return {
        "kernel": kernel,
        "precision": precision,
        "arch": tiles.architecture(device.arch),
        "block": list(tile[:3]),
        "group": tile.group_m,
        "warps": tile.how.warps,
        "stages": tile.how.stages,
        "pieces": tile.pieces,
        "flatten": tile.flatten,
        "rate": round(rate, 4),
        "source": f"measured on {device.name}: {measured}",
    }


def _step(module: nn.Module, x: Tensor, grad_y: Tensor) -> Callable[[], None]:
    def step() -> None:
        for parameter in module.parameters():
            parameter.grad = None
        x.grad = None
        module(x).backward(grad_y)

    return step


def _times(
    device: torch.device,
    dtype: torch.dtype,
    measure: Measure,
    network: tuple[int, int, int, int],
    modules: Callable[..., tuple[nn.Module, nn.Module]],
) -> tuple[float, float]:
    """Microseconds of forward + backward, ours and torch's."""
    batch, *widths = network
    x = torch.randn(batch, widths[0], dtype=dtype, device=device, requires_grad=True)
    grad_y = torch.randn(batch, widths[-1], dtype=dtype, device=device)
    fused, plain = modules(*widths, dtype=dtype, device=device)
    ours = measure(_step(fused, x, grad_y)) * 1e6
    return ours, measure(_step(plain, x, grad_y)) * 1e6


def compare_with_torch(
    device: torch.device,
    measure: Measure,
    networks: tuple[tuple[int, int, int, int], ...],
    modules: Callable[..., tuple[nn.Module, nn.Module]],
    report: Report = lambda line: None,
    written: Written = lambda rows: None,
) -> Entries:
    """Rows of forward + backward, ours and torch's; ``modules`` makes the two for some widths."""
    rows: Entries = []
    for precision, dtype in MODES:
        for network in networks:
            name = "x".join(map(str, network))
            with _reporting(f"{name} {precision}", device, report):
                with in_precision(precision):
                    assert precision_of(dtype) == precision
                    ours, torchs = _times(device, dtype, measure, network, modules)
                sizes = dict(zip(measurements.SIZES, network, strict=True))
                times = {"ours": round(ours, 2), "torch": round(torchs, 2)}
                rows.append({"precision": precision} | sizes | times)
                written(rows)
                report(f"{name} {precision}: {torchs / ours:.2f}x torch ({ours:.0f} us)")
    return rows


def products_of(batch: int, in_features: int, hidden: int, out: int) -> dict[str, Any]:
    """Each product of a network by its work: the function, and the shapes of what it is given."""
    x, y, h = (batch, in_features), (batch, out), (batch, hidden)
    w1, w2 = (hidden, in_features), (out, hidden)
    return {
        "linear_relu": (partial(layers.linear, relu=True), (x, w1, (hidden,))),
        "linear": (partial(layers.linear, relu=False), (h, w2, (out,))),
        "masked_gradient": (partial(layers.hidden_gradient, wants_bias=True), (y, w2, h)),
        "input_gradient": (layers.input_gradient, (h, w1)),
        "weight_gradient": (layers.weight_gradient, (h, x)),
    }


def _sizes_of(work: str, first: tuple[int, ...], second: tuple[int, ...]) -> dict[str, int]:
    """M, N and K of a product that is given these."""
    m, k = first if work != "weight_gradient" else first[::-1]
    n = second[0] if work.startswith("linear") else second[1]
    return {"m": m, "n": n, "k": k}


def compare_products(
    device: torch.device,
    measure: Measure,
    networks: tuple[tuple[int, int, int, int], ...],
    report: Report = lambda line: None,
    written: Written = lambda rows: None,
) -> Entries:
    """Rows of single products, ours and torch's, each with all that it does for a network."""
    rows: Entries = []
    for precision, dtype in MODES:
        for network in networks:
            for work, (function, shapes) in products_of(*network).items():
                sizes = _sizes_of(work, shapes[0], shapes[1])
                name = f"{work} {'x'.join(map(str, sizes.values()))} {precision}"
                with _reporting(name, device, report):
                    given = [torch.randn(shape, dtype=dtype, device=device) for shape in shapes]
                    times = {}
                    for side in ("ours", "torch"):
                        with in_precision(precision), products.chosen(side == "torch"):
                            times[side] = round(measure(partial(function, *given)) * 1e6, 2)
                    rows.append({"work": work, "precision": precision} | sizes | times)
                    written(rows)
                    report(f"{name}: {times['torch'] / times['ours']:.2f}x torch")
    return rows


# The parts of a device's table, and what one measurement of each is about.
PARTS = {
    "tiles": ("kernel", "precision", "arch"),
    "products": ("work", "precision", "m", "n", "k"),
    "against_torch": ("precision", *measurements.SIZES),
}


def read(path: Path) -> dict[str, Any]:
    """The table of a device as it was written last, empty where none was."""
    table: dict[str, Any] = {part: [] for part in PARTS}
    return table | (json.loads(path.read_text()) if path.is_file() else {})


def updated(part: str, before: Entries, entries: Entries) -> Entries:
    """The entries of a part, and those before them of what has not been measured again."""

    def about(entry: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(entry[field] for field in PARTS[part])

    measured = set(map(about, entries))
    return [*entries, *(entry for entry in before if about(entry) not in measured)]


def write(table: dict[str, Any], path: Path) -> None:
    """Replaces the table of a device; a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(scratch, path)
    tiles.forget_tables()
    measurements.forget_tables()
    products.forget_tables()
