"""``python3 -m benches.gpu.ship TABLE``: what ``twolayer tune`` measured becomes what ships.

Its comparisons with torch go into ``measured.json`` under the class of the device; its tiles take
the place of those in ``tiles.json`` for the same kernel, precision and architecture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .results import write_text

_PACKAGE = Path(__file__).parents[2] / "twolayer_kernels" / "backends" / "triton"

Entries = list[dict[str, Any]]


def _kind(tile: dict[str, Any]) -> tuple[Any, ...]:
    return tile["kernel"], tile["precision"], tile["arch"]


def with_tiles(shipped: Entries, measured: Entries) -> Entries:
    """What ships, with the measured tiles where the first of their kind stood."""
    rest = {_kind(tile): [t for t in measured if _kind(t) == _kind(tile)] for tile in measured}
    kinds, merged = set(rest), []
    for tile in shipped:
        merged += rest.pop(_kind(tile), []) if _kind(tile) in kinds else [tile]
    return merged + [tile for tiles in rest.values() for tile in tiles]


def _written(entries: Entries) -> str:
    """A list, with a line for each entry."""
    return "[\n" + ",\n".join(map(json.dumps, entries)) + "\n]"


def _of_classes(measured: dict[str, dict[str, Entries]]) -> str:
    """An object, with a line for each entry of each list in it."""
    classes = (
        f'"{name}": {{' + ", ".join(f'"{part}": {_written(e)}' for part, e in parts.items()) + "}"
        for name, parts in sorted(measured.items())
    )
    return "{\n" + ",\n".join(classes) + "\n}"


def ship(table: dict[str, Any], folder: Path = _PACKAGE) -> str:
    """Writes both files; says what it shipped.

    Raises:
        ValueError: the table compares nothing, as that of a tuner that was stopped early.
    """
    from twolayer_kernels.backends.triton.measurements import device_class

    rows, known = table["against_torch"], device_class(table["device"])
    if not rows:
        raise ValueError(f"the table of {table['device']} compares nothing with torch")
    path = folder / "measured.json"
    parts = {part: table.get(part, []) for part in ("products", "against_torch")}
    measured = json.loads(path.read_text()) | {known: parts}
    write_text(path, _of_classes(measured) + "\n")
    path = folder / "tiles.json"
    tiles = with_tiles(json.loads(path.read_text()), table["tiles"])
    write_text(path, _written(tiles) + "\n")
    return f"{known}: {len(rows)} comparisons, {len(table['tiles'])} tiles"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m benches.gpu.ship", description=__doc__)
    parser.add_argument("table", type=Path, help="as `twolayer tune` wrote it")
    print(ship(json.loads(parser.parse_args().table.read_text())))


if __name__ == "__main__":
    main()
