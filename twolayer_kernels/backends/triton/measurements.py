"""What was measured on a device against torch, and what follows for a network of another size.

``measured.json`` ships with the package, one table per class of devices; ``twolayer tune`` writes
one for the device at hand, which takes its place there. Where nothing was measured, or nothing
alike, there is no answer: the kernels then run only where they are asked for by name.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from .tiles import tuned_table_path

SIZES = ("batch", "in_features", "hidden_features", "out_features")
# Ours must have been this much faster than torch: less may be noise, or another card of the class.
MARGIN = 1.03
# Doublings, over all four sizes together, that a measurement speaks for: halfway between the
# networks that the tuner measures is 5 to 6.
FARTHEST = 6.0


class Row(NamedTuple):
    """Microseconds of forward + backward, ours and torch eager's, for one network and precision."""

    precision: str
    batch: int
    in_features: int
    hidden_features: int
    out_features: int
    ours: float
    torch: float


class Verdict(NamedTuple):
    faster: bool
    reason: str


def device_class(device_name: str) -> str:
    """``H100`` of ``NVIDIA H100 80GB HBM3``; a part of a device, or another name, is its own."""
    model = re.match(r"NVIDIA ([A-Z]{1,2}\d{2,3})(?![A-Za-z0-9])", device_name)
    return model[1] if model is not None and "MIG" not in device_name else device_name


class Source(NamedTuple):
    """Measurements that speak for a device, and what they were made on."""

    device: str
    entries: list[dict[str, Any]]


@cache
def _shipped() -> dict[str, dict[str, list[dict[str, Any]]]]:
    text = (files(__package__) / "measured.json").read_text()
    tables: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(text)
    return tables


@cache
def measured_on(device_name: str, part: str, precision: str) -> Source:
    """What a part of a device's table has in a precision.

    The user's own table, else that of its class, which ships.
    """
    path, entries = tuned_table_path(device_name), []
    if path.is_file():
        entries = json.loads(path.read_text()).get(part, [])
    own = [entry for entry in entries if entry["precision"] == precision]
    if own:
        return Source(device_name, own)
    known = device_class(device_name)
    shipped = _shipped().get(known, {}).get(part, [])
    alike = [entry for entry in shipped if entry["precision"] == precision]
    return Source(f"a device like it ({known})", alike)


@cache
def rows_for(device_name: str, precision: str) -> tuple[Row, ...]:
    """The networks that were measured on a device, or on one like it."""
    source = measured_on(device_name, "against_torch", precision)
    return tuple(Row(**entry) for entry in source.entries)


def doublings(sizes: tuple[int, ...], others: tuple[int, ...]) -> float:
    """How far sizes are apart: the ratios of each two of them, counted in doublings."""
    return sum(abs(math.log2(max(1, a) / max(1, b))) for a, b in zip(sizes, others, strict=True))


def _distance(row: Row, sizes: tuple[int, int, int, int]) -> float:
    return doublings(row[1:5], sizes)


@lru_cache(maxsize=4096)
def verdict(
    device_name: str,
    precision: str,
    batch: int,
    in_features: int,
    hidden_features: int,
    out_features: int,
) -> Verdict:
    """Whether our kernels are faster than torch's, from the measured network that is most alike."""
    sizes = (batch, in_features, hidden_features, out_features)
    rows = rows_for(device_name, precision)
    if not rows:
        return Verdict(
            False,
            f"the Triton kernels have not been measured in {precision} on {device_name};"
            " `twolayer tune` does it, backend='triton' takes them as they are",
        )
    nearest = min(rows, key=lambda row: _distance(row, sizes))
    name, distance = "x".join(map(str, nearest[1:5])), _distance(nearest, sizes)
    where = measured_on(device_name, "against_torch", precision).device
    if distance > FARTHEST:
        return Verdict(
            False,
            f"no network like this one was measured in {precision} on {device_name}: the nearest,"
            f" {name}, is {distance:.1f} doublings away, and {FARTHEST:g} are the most",
        )
    ratio = nearest.torch / nearest.ours
    faster = ratio >= MARGIN
    relation = f"{ratio:.2f}x as fast as torch" if faster else f"only {ratio:.2f}x torch's speed"
    least = "" if faster else f" (at least {MARGIN:g}x is wanted)"
    return Verdict(
        faster,
        f"measured on {where}: {relation}{least} at {name}, the nearest size in {precision}",
    )


def forget_tables() -> None:
    """After a table on disk has changed."""
    _shipped.cache_clear()
    measured_on.cache_clear()
    rows_for.cache_clear()
    verdict.cache_clear()
