"""What was measured on a device against torch, and what follows for a network of another size.

``measured.json`` ships with the package, one list of rows per device name; ``twolayer tune`` writes
a table for the device at hand, which takes its place there. On a device without measurements there
is no answer: the kernels then run only where they are asked for by name.
"""

from __future__ import annotations

import json
import math
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from .tiles import tuned_table_path

SIZES = ("batch", "in_features", "hidden_features", "out_features")


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


@cache
def _shipped() -> dict[str, list[dict[str, Any]]]:
    text = (files(__package__) / "measured.json").read_text()
    tables: dict[str, list[dict[str, Any]]] = json.loads(text)
    return tables


@cache
def rows_for(device_name: str) -> tuple[Row, ...]:
    """The measurements on a device of this name: the user's own, else those that ship."""
    path = tuned_table_path(device_name)
    if path.is_file():
        entries = json.loads(path.read_text())["against_torch"]
    else:
        entries = _shipped().get(device_name, [])
    return tuple(Row(**entry) for entry in entries)


def _distance(row: Row, sizes: tuple[int, int, int, int]) -> float:
    """How far two networks are apart: the ratios of their sizes, each counted in doublings."""
    return sum(abs(math.log2(max(1, a) / max(1, b))) for a, b in zip(row[1:5], sizes, strict=True))


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
    rows = [row for row in rows_for(device_name) if row.precision == precision]
    if not rows:
        return Verdict(
            False,
            f"the Triton kernels have not been measured in {precision} on {device_name};"
            " `twolayer tune` does it, backend='triton' takes them as they are",
        )
    nearest = min(rows, key=lambda row: _distance(row, sizes))
    ratio = nearest.torch / nearest.ours
    faster = ratio >= 1
    name = "x".join(map(str, nearest[1:5]))
    relation = f"{ratio:.2f}x as fast as torch" if faster else f"only {ratio:.2f}x torch's speed"
    return Verdict(
        faster, f"measured on {device_name}: {relation} at {name}, the nearest size in {precision}"
    )


def forget_tables() -> None:
    """After a table on disk has changed."""
    rows_for.cache_clear()
    verdict.cache_clear()
