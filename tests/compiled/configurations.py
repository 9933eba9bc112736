"""Every configuration that ships, and what compiles it: the library's own launchers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from twolayer_kernels.backends.triton import launch, layers, tiles, two_layers

from . import cubins, stub

PRECISIONS = ("16bit", "tf32", "tf32x3", "ieee")
NARROW_PRECISIONS = ("16bit", "tf32", "ieee")
# The small kernels, and what each is compiled for.
SMALL = {"sum_parts": "", "column_sums": "parts", "masked": ""}

# The epilogues that each product is used with, the one with most to do first.
CASES = {
    "linear": ("bias-relu", "plain"),
    "dgrad": ("mask-sums", "plain"),
    "wgrad": ("plain", "parts", "added"),
}
# What a narrow kernel is asked for, at which width of the output.
NARROW_CASES = {
    "narrow_forward": (
        ("keep", 10),
        ("inference", 10),
        ("parts", 64),
        ("keep", 256),
        ("parts", 256),
    ),
    "narrow_backward": (("all", 10), ("parts", 64), ("all", 256), ("parts", 256)),
}
PARTS = 4
BATCH, IN_FEATURES, HIDDEN_FEATURES = 64, 1000, 100


class Configuration(NamedTuple):
    """One kernel, compiled in one way."""

    arch: int
    kernel: str  # as in tiles.json, or one of SMALL
    precision: str
    tile: tiles.Tile | tiles.NarrowTile | None
    case: str
    # How a product's operands come: "descriptors", "pointers" (rows that start at multiples of 8 or
    # 16 bytes) or "odd" (rows that start anywhere).
    operands: str
    out_features: int  # of a narrow kernel

    @property
    def detail(self) -> str:
        """What tells it from the others of its kernel and architecture."""
        block = "x".join(map(str, self.tile[:3])) if self.tile else ""
        out = f"out{self.out_features}" if self.out_features else ""
        return "-".join(filter(None, (self.precision, block, out, self.case, self.operands)))

    def __str__(self) -> str:
        return "-".join(filter(None, (f"sm_{self.arch}", self.kernel, self.detail)))

    @property
    def function(self) -> str:
        product = "product" if self.kernel in CASES else self.kernel
        return f"{product}_kernel"


def _products(arch: int) -> Iterator[Configuration]:
    described = arch >= 90
    device = launch.Device("as shipped", arch, stub.MULTIPROCESSORS[arch])
    for kernel, cases in CASES.items():
        for precision in PRECISIONS:
            shipped_tiles = tiles.tiles_for(kernel, precision, device)
            for tile in shipped_tiles:
                for case in cases:
                    operands = "descriptors" if described else "pointers"
                    yield Configuration(arch, kernel, precision, tile, case, operands, 0)
                if described:
                    yield Configuration(arch, kernel, precision, tile, cases[0], "pointers", 0)
            # Large products copy rows that start anywhere, small ones take the smallest tile.
            smallest = shipped_tiles[-1]
            yield Configuration(arch, kernel, precision, smallest, cases[0], "odd", 0)


def _narrow(arch: int) -> Iterator[Configuration]:
    device = launch.Device("as shipped", arch, stub.MULTIPROCESSORS[arch])
    for kernel, cases in NARROW_CASES.items():
        for precision in NARROW_PRECISIONS:
            shipped = tiles.narrow_tiles_for(kernel, precision, device)
            for case, out_features in cases:
                for tile in tiles.narrowest_fitting(shipped, out_features):
                    yield Configuration(arch, kernel, precision, tile, case, "", out_features)


def _first_of_each(
    configurations: Iterable[Configuration], *fields: str
) -> Iterator[Configuration]:
    """One configuration for each combination of the fields."""
    seen = set()
    for c in configurations:
        kind = tuple(getattr(c, field) for field in fields)
        if kind not in seen:
            seen.add(kind)
            yield c


def shipped(arch: int) -> list[Configuration]:
    if arch not in tiles.ARCHITECTURES:  # it has the tiles of the one before, and its instructions
        return [*_first_of_each([*_products(arch), *_narrow(arch)], "kernel", "precision")]
    small = [Configuration(arch, kernel, "", None, case, "", 0) for kernel, case in SMALL.items()]
    return [*_products(arch), *_narrow(arch), *small]


def tested(arch: int) -> list[Configuration]:
    """Those that every run of the tests compiles; ``make kernels`` compiles all that ship.

    All of Hopper, and one for each case of the others: their kernels differ from those of Hopper
    by the instructions, which every case shows.
    """
    if arch == 90:
        return shipped(arch)
    return [*_first_of_each(shipped(arch), "kernel", "precision", "case")]


def _size(operands: str, dtype: torch.dtype) -> int:
    """A size, for all of M, N and K, that gives such operands."""
    eight_bytes = 8 // dtype.itemsize
    return {"descriptors": 4096, "pointers": 4096 + eight_bytes, "odd": 4097}[operands]


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "16bit" else torch.float32


def _launch_product(c: Configuration) -> None:
    dtype = _dtype(c.precision)
    size = 4096 if c.arch < 90 and c.operands == "pointers" else _size(c.operands, dtype)
    square = torch.empty(size, size, dtype=dtype)
    if c.kernel == "linear":
        bias = torch.empty(size, dtype=dtype) if c.case == "bias-relu" else None
        layers.linear(square, square, bias, relu=bias is not None)
    elif c.kernel == "dgrad" and c.case == "mask-sums":
        layers.hidden_gradient(square, square, square, True)
    elif c.kernel == "dgrad":
        layers.input_gradient(square, square)
    else:
        total = torch.empty(size, size) if c.case == "added" else None
        layers.weight_gradient(square, square, add_to=total)


def _launch_narrow(c: Configuration) -> None:
    def new(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=_dtype(c.precision))

    x, y = new(BATCH, IN_FEATURES), new(BATCH, c.out_features)
    w1, w2 = new(HIDDEN_FEATURES, IN_FEATURES), new(c.out_features, HIDDEN_FEATURES)
    if c.kernel == "narrow_forward":
        b1, b2 = new(HIDDEN_FEATURES), new(c.out_features)
        two_layers.forward(x, w1, w2, b1, b2, c.case != "inference")
    else:
        two_layers.backward(y, x, w1, w2, new(BATCH, HIDDEN_FEATURES), (True,) * 5)


def _launch_small(c: Configuration) -> None:
    t = torch.empty(4096, 4096, dtype=torch.bfloat16)
    if c.kernel == "column_sums":
        layers.column_sums(t)
    else:  # the masked gradient's column sums are sums of parts
        layers.masked(t, t, True)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def compiled(c: Configuration) -> cubins.Resources | str:
    """What the compiler makes of a configuration, or why it makes nothing."""
    parts = PARTS if c.case == "parts" else 1
    with ExitStack() as stack:
        stack.enter_context(stub.device(c.arch))
        stack.enter_context(tf32(c.precision == "tf32"))
        # Pointers are what smaller products take; sizes here are large enough to be copied.
        stack.enter_context(mock.patch.object(layers, "_WORTH_A_COPY", 1 << 62))
        if c.kernel in CASES:  # short sums are what real float32 is for; here all are long
            precision = mock.patch.object(layers, "product_precision_of", return_value=c.precision)
            stack.enter_context(precision)
        if c.tile is not None:
            module, name = (
                (layers, "choose_tile") if c.kernel in CASES else (two_layers, "choose_narrow")
            )
            chosen = mock.patch.object(module, name, return_value=(c.tile, parts))
            stack.enter_context(chosen)
        start = (
            _launch_product
            if c.kernel in CASES
            else _launch_narrow
            if c.kernel in NARROW_CASES
            else _launch_small
        )
        try:
            start(c)
        except OutOfResources as error:
            return str(error)
        found = [k for k in stub.compiled() if k.name == c.function]
        assert len(found) == 1, f"{c}: one {c.function} was to be launched, got {len(found)}"
        return cubins.read(found[0])


def compile_all(
    configurations: Sequence[Configuration], workers: int = 2
) -> list[cubins.Resources | str]:
    """The same for many, in processes of their own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        return list(pool.map(compiled, configurations, chunksize=4))
