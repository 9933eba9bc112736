"""``python3 -m benches.gpu [first|second]``: checks the GPU kernels and times them, in two calls.

``first`` (240 s): kernels compiled, exact results, the tests, every row with the peers that are
quick to build. ``second`` (430 s): the tuner, ``torch.compile``, max-autotune, a profile. Without a
name both, one after the other. Writes one JSON, logs, and a picture where matplotlib is installed,
to ``$OUT`` or ``benches/results``, after each step.
Exit status: 0, or 1 where a test fails or a goal is missed, or 2 where there is no CUDA device; a
goal that only the second call has figures for is not missed by the first.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

from . import goals, machine, parts, picture, report
from .budget import Budget
from .cases import CASES


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m benches.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="?", choices=tuple(parts.PARTS), help="one call (both)")
    parser.add_argument("--minutes", type=float, help="for all that is to be done (4, 7.2, both)")
    parser.add_argument("--rows", default="", help="only rows whose name holds this text")
    return parser.parse_args(arguments)


def _seconds(chosen: list[str], minutes: float | None) -> dict[str, float]:
    """For each part: its own time, or its share of ``minutes``."""
    total = sum(parts.SECONDS[part] for part in chosen)
    scale = 1.0 if minutes is None else 60 * minutes / total
    return {part: scale * parts.SECONDS[part] for part in chosen}


def _finish(call: parts.Call) -> list[goals.Outcome]:
    kept = call.kept
    kept["clocks_after"] = machine.nvidia_smi()
    found = goals.outcomes(kept["rows"])
    kept["goals"] = goals.as_data(found)
    call.write()
    print()
    print(report.text(kept, found))
    print(picture.draw(kept, call.path.with_suffix(".png")))
    print(f"results: {call.path.name}", flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    options = _arguments(arguments)
    if not torch.cuda.is_available():
        print("python3 -m benches.gpu: there is no CUDA device; nothing was run", file=sys.stderr)
        return 2
    cases = [case for case in CASES if options.rows in case.id]
    if not cases:
        names = "\n  ".join(case.id for case in CASES)
        print(f"--rows must be part of a row's name, got {options.rows!r}; rows:\n  {names}")
        return 2
    chosen = [options.part] if options.part else list(parts.PARTS)
    found: list[goals.Outcome] = []
    kept: dict[str, Any] = {}
    for part, seconds in _seconds(chosen, options.minutes).items():
        call = parts.start(part, cases, Budget(seconds))
        parts.PARTS[part](call)
        found, kept = _finish(call), call.kept
    counted = [one for one in found if one.figure is not None or chosen[-1] != parts.FIRST]
    return 0 if kept["trustworthy"] and all(one.reached for one in counted) else 1


if __name__ == "__main__":
    sys.exit(main())
