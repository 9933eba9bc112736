"""The JSON of a run: where it lies, its schema, and a way to write it that loses nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SCHEMA = 2
FOLDER = Path(__file__).parents[1] / "results"
TUNED = "tuned"  # the folder beside the results for the table of `twolayer tune`


def folder() -> Path:
    """``$OUT`` where it is set, else ``benches/results``."""
    return Path(os.environ.get("OUT") or FOLDER)


def file_for(machine: str, where: Path) -> Path:
    """One file for each kind of machine: a new run takes the place of the last."""
    words = "".join(c if c.isalnum() else " " for c in machine.lower()).split()
    return where / f"{'-'.join(words)}.json"


def log_for(results: Path, name: str) -> Path:
    """A file of the same machine beside the JSON."""
    return results.with_name(f"{results.stem}-{name}")


def write_text(path: Path, text: str) -> None:
    """All or nothing: a reader finds this text or the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(text)
    draft.replace(path)


def write(path: Path, results: dict[str, Any]) -> None:
    write_text(path, json.dumps({"schema": SCHEMA, **results}, indent=1) + "\n")


def read(path: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(path.read_text())
    if results.get("schema") != SCHEMA:
        raise ValueError(f"{path.name}: schema must be {SCHEMA}, got {results.get('schema')!r}")
    return results


def earlier(name: str, machine: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The results of an earlier call on such a machine at this commit, and where they were.

    Without them, why: no file of this name in the folder of the results nor in ``benches/results``,
    or one of other code.
    """
    for path in (folder() / name, FOLDER / name):
        if not path.is_file():
            continue
        try:
            found = read(path)
        except ValueError as error:
            return None, str(error)
        for key in ("commit", "torch", "triton"):
            was, now = found["machine"][key], machine[key]
            if was != now:
                return None, f"{name} is of {key} {was}, this is {now}"
        return found, name
    return None, f"no {name} from an earlier call"


def seconds(row: dict[str, Any], peer: str) -> float | None:
    """The median time of a peer, where there is one."""
    figure = row["peers"].get(peer, {}).get("median")
    return None if figure is None else float(figure)


def ratio(row: dict[str, Any], peer: str, ours: str) -> float | None:
    """Time of the peer over ours; both timed in turn where one of them was timed beside the other.

    A pass times some peers anew beside its own: the clocks of a GPU differ from pass to pass.
    """
    theirs, own = seconds(row, peer), seconds(row, ours)
    beside = row["peers"].get(peer, {}).get("beside", {})
    if theirs is not None and ours in beside:
        return theirs / float(beside[ours])
    beside = row["peers"].get(ours, {}).get("beside", {})
    if own is not None and peer in beside:
        return float(beside[peer]) / own
    return None if theirs is None or own is None else theirs / own
