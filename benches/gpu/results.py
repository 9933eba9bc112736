"""The JSON of a run: where it lies, its schema, and a way to write it that loses nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SCHEMA = 1
FOLDER = Path(__file__).parents[1] / "results"


def folder() -> Path:
    """``$OUT`` where it is set, else ``benches/results``."""
    return Path(os.environ.get("OUT") or FOLDER)


def file_for(machine: str, where: Path) -> Path:
    """One file for each kind of machine: a new run takes the place of the last."""
    words = "".join(c if c.isalnum() else " " for c in machine.lower()).split()
    return where / f"{'-'.join(words)}.json"


def write(path: Path, results: dict[str, Any]) -> None:
    """All or nothing: a reader finds this text or the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps({"schema": SCHEMA, **results}, indent=1) + "\n")
    draft.replace(path)


def read(path: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(path.read_text())
    if results.get("schema") != SCHEMA:
        raise ValueError(f"{path.name}: schema must be {SCHEMA}, got {results.get('schema')!r}")
    return results


def seconds(row: dict[str, Any], peer: str) -> float | None:
    """The median time of a peer, where there is one."""
    figure = row["peers"].get(peer, {}).get("median")
    return None if figure is None else float(figure)


def ratio(row: dict[str, Any], peer: str, ours: str) -> float | None:
    """Time of the peer over ours."""
    theirs, own = seconds(row, peer), seconds(row, ours)
    return None if theirs is None or own is None else theirs / own
