"""Which tile a product uses: a table of tiles as data, and the choice from it by predicted time.

``tiles.json`` ships with the package; each line names what chose it. A table written for one device
by ``twolayer tune`` takes its place there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from .launch import Device, Launch

KERNELS = ("linear", "dgrad", "wgrad")
ARCHITECTURES = (80, 90, 100)


class Tile(NamedTuple):
    """One configuration of the product kernel."""

    block_m: int
    block_n: int
    block_k: int
    group_m: int
    pieces: int
    flatten: bool  # whether the next tile's operands are fetched during the epilogue
    how: Launch
    rate: float  # of the device when all of it is busy with this tile, relative to the fastest
    source: str


def tuned_table_path(device_name: str) -> Path:
    """Where ``twolayer tune`` keeps what it measured on a device of this name."""
    root = os.environ.get("TWOLAYER_CACHE") or Path.home() / ".cache" / "twolayer_kernels"
    return Path(root) / f"tiles-{device_name.lower().replace(' ', '-')}.json"


def _tile(entry: dict[str, Any]) -> Tile:
    block_m, block_n, block_k = entry["block"]
    return Tile(
        block_m,
        block_n,
        block_k,
        entry["group"],
        entry["pieces"],
        entry.get("flatten", False),
        Launch(entry["warps"], entry["stages"]),
        entry["rate"],
        entry["source"],
    )


@cache
def _shipped() -> list[dict[str, Any]]:
    text = (files(__package__) / "tiles.json").read_text()
    entries: list[dict[str, Any]] = json.loads(text)
    return entries


@cache
def _table(device_name: str) -> list[dict[str, Any]]:
    path = tuned_table_path(device_name)
    if path.is_file():
        entries: list[dict[str, Any]] = json.loads(path.read_text()).get("tiles", [])
        return entries
    return _shipped()


def architecture(arch: int) -> int:
    """The newest architecture with tiles of its own that is not newer than the device."""
    return max(known for known in ARCHITECTURES if known <= arch)


def _entries(
    table: list[dict[str, Any]], kernel: str, precision: str, device: Device
) -> list[dict[str, Any]]:
    wanted = (kernel, precision, architecture(device.arch))
    return [e for e in table if (e["kernel"], e["precision"], e["arch"]) == wanted]


def shipped_tiles_for(kernel: str, precision: str, device: Device) -> tuple[Tile, ...]:
    return tuple(map(_tile, _entries(_shipped(), kernel, precision, device)))


@cache
def tiles_for(kernel: str, precision: str, device: Device) -> tuple[Tile, ...]:
    """The tiles of a kernel, the device's own where they were measured."""
    tuned = _entries(_table(device.name), kernel, precision, device)
    return tuple(map(_tile, tuned)) or shipped_tiles_for(kernel, precision, device)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def power_of_two_from(n: int) -> int:
    """The smallest power of two that is not below ``n``."""
    return 1 << max(0, n - 1).bit_length()


def alignment(*sizes: int) -> int:
    """The largest power of two, up to 16, that divides all sizes."""
    for power in (16, 8, 4, 2):
        if all(size % power == 0 for size in sizes):
            return power
    return 1


@lru_cache(maxsize=4096)
def choose_tile(
    kernel: str, precision: str, device: Device, m: int, n: int, k: int, splittable: bool
) -> tuple[Tile, int]:
    """The tile, and into how many parts K is cut, with the least predicted time for M x N x K.

    The time of a product is that of the multiprocessor with the most tiles. Where the tiles of C
    are too few for all of them and K is long, K is cut; each part must be worth its trip to memory.
    """
    best: tuple[float, Tile, int] | None = None
    for tile in tiles_for(kernel, precision, device):
        count = ceil_div(m, tile.block_m) * ceil_div(n, tile.block_n)
        steps = max(1, ceil_div(k, tile.block_k))
        parts = 1
        if splittable and count < device.multiprocessors:
            parts = max(1, min(device.multiprocessors // count, steps // 8))
        busiest = ceil_div(count * parts, device.multiprocessors)
        area = tile.block_m * tile.block_n
        time = busiest * ceil_div(steps, parts) * area * tile.block_k / tile.rate
        if best is None or time < best[0]:
            best = (time, tile, parts)
    assert best is not None, f"no tiles for {kernel} in {precision}"
    return best[1], best[2]


class NarrowTile(NamedTuple):
    """One configuration of a narrow kernel; ``block_k`` runs along the input's features."""

    block_b: int
    block_h: int
    block_k: int
    most_out: int  # the widest output, padded, that fits the registers
    how: Launch
    source: str


# Where the narrow kernels are worth it. Not measured yet: reasoned from what they read again (the
# input once for each block of hidden features) and compute again (dh for each block of the input).
_MOST_OUT, _MOST_HIDDEN, _MOST_IN = 256, 1024, 2048
# Multiply-adds of a forward; real float32 leaves the matrix units idle.
_MOST_WORK = {"16bit": 1 << 30, "tf32": 1 << 30, "ieee": 1 << 24}


def is_narrow(
    precision: str, batch: int, in_features: int, hidden_features: int, out_features: int
) -> bool:
    """Whether a network of this size runs in one launch forward and one backward."""
    return (
        batch > 0
        and 0 < out_features <= _MOST_OUT
        and 0 < hidden_features <= _MOST_HIDDEN
        and 0 < in_features <= _MOST_IN
        and batch * hidden_features * (in_features + out_features) <= _MOST_WORK[precision]
    )


def padded_out_features(out_features: int) -> int:
    """The width of a tile that holds all of the output: a power of two, at least 16."""
    return max(16, power_of_two_from(out_features))


def _narrow_tile(entry: dict[str, Any]) -> NarrowTile:
    block_b, block_h, block_k = entry["block"]
    how = Launch(entry["warps"], entry["stages"])
    return NarrowTile(block_b, block_h, block_k, entry["most_out"], how, entry["source"])


@cache
def narrow_tiles_for(kernel: str, precision: str, device: Device) -> tuple[NarrowTile, ...]:
    """The tiles of a narrow kernel, those for the narrowest outputs first."""
    tuned = _entries(_table(device.name), kernel, precision, device)
    entries = tuned or _entries(_shipped(), kernel, precision, device)
    return tuple(map(_narrow_tile, entries))


def narrowest_fitting(known: Iterable[NarrowTile], out_features: int) -> list[NarrowTile]:
    """Of tiles in the order of ``most_out``, those for the narrowest output that hold this one."""
    fitting = [tile for tile in known if padded_out_features(out_features) <= tile.most_out]
    return [tile for tile in fitting if tile.most_out == fitting[0].most_out]


@lru_cache(maxsize=4096)
def choose_narrow(
    kernel: str,
    precision: str,
    device: Device,
    batch: int,
    in_features: int,
    hidden_features: int,
    out_features: int,
) -> tuple[NarrowTile, int]:
    """The tile, and how many programs share the sum of one output.

    The sum is over hidden features in ``narrow_forward``, over the batch in ``narrow_backward``; it
    is shared as far as multiprocessors would be idle otherwise. Of several tiles that fit, the one
    whose busiest multiprocessor reads the least of the input and the first weight.
    """
    best: tuple[int, NarrowTile, int] | None = None
    for tile in narrowest_fitting(narrow_tiles_for(kernel, precision, device), out_features):
        if kernel == "narrow_forward":
            alone = ceil_div(batch, tile.block_b)
            steps = ceil_div(hidden_features, tile.block_h)
            of_a_part = 1
        else:
            alone = ceil_div(hidden_features, tile.block_h) * ceil_div(in_features, tile.block_k)
            steps = ceil_div(batch, tile.block_b)
            of_a_part = 4  # less is not worth the trip to memory
        parts = max(1, min(ceil_div(steps, of_a_part), device.multiprocessors // alone))
        busiest = ceil_div(alone * parts, device.multiprocessors) * ceil_div(steps, parts)
        read = busiest * (tile.block_b + tile.block_h)
        if best is None or read < best[0]:
            best = (read, tile, parts)
    assert best is not None, f"no tiles for {kernel} in {precision}"
    return best[1], best[2]


def forget_tables() -> None:
    """After a table on disk has changed."""
    for cached in (_table, tiles_for, narrow_tiles_for, choose_tile, choose_narrow):
        cached.cache_clear()
