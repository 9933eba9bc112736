"""Which matrix product of the layer-by-layer way torch's library runs, where it measured faster.

Fusing saves a large product the trip of its result through memory, which is a small part of its
time; a library's product may be faster by more. So each is measured beside torch's in all that it
does for a network (``twolayer tune``), and torch's takes its place where that was faster by the
margin of :mod:`.measurements`. Without a measurement alike it never does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import NamedTuple

import torch

from .measurements import MARGIN, doublings, measured_on

# What a network asks of a product: the first layer, the second; the gradients of the activation
# (with mask and bias gradient), of the input and of a weight.
WORKS = ("linear_relu", "linear", "masked_gradient", "input_gradient", "weight_gradient")
# Doublings of M, N and K together that a measurement speaks for.
FARTHEST = 3.0


class Row(NamedTuple):
    """Microseconds of one product of M x K by K x N, ours and torch's."""

    work: str
    precision: str
    m: int
    n: int
    k: int
    ours: float
    torch: float


@cache
def _rows(device_name: str, precision: str) -> tuple[Row, ...]:
    return tuple(Row(**entry) for entry in measured_on(device_name, "products", precision).entries)


def _distance(row: Row, sizes: tuple[int, int, int]) -> float:
    return doublings(row[2:5], sizes)


@lru_cache(maxsize=4096)
def _torch_measured_faster(
    device_name: str, work: str, precision: str, m: int, n: int, k: int
) -> bool:
    sizes = m, n, k
    alike = [
        row
        for row in _rows(device_name, precision)
        if row.work == work and _distance(row, sizes) <= FARTHEST
    ]
    if not alike:
        return False
    nearest = min(alike, key=lambda row: _distance(row, sizes))
    return nearest.torch * MARGIN <= nearest.ours


_chosen: bool | None = None  # in the place of the measurements


@contextmanager
def chosen(torchs: bool) -> Iterator[None]:
    """All products inside are torch's, or ours; for the tuner, in one thread."""
    global _chosen
    _chosen = torchs
    try:
        yield
    finally:
        _chosen = None


def torch_is_faster(device_name: str, work: str, precision: str, m: int, n: int, k: int) -> bool:
    """Whether torch's product is to run; not where its bits may depend on the run."""
    if _chosen is not None:
        return _chosen
    return (
        min(m, n, k) > 0
        and _torch_measured_faster(device_name, work, precision, m, n, k)
        and not torch.are_deterministic_algorithms_enabled()
    )


def forget_tables() -> None:
    """After a table on disk has changed."""
    _rows.cache_clear()
    _torch_measured_faster.cache_clear()
