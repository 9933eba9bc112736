"""``python3 -m benches.gpu``: checks the GPU kernels, times them, and says which goals are met.

Writes one JSON, and a picture where matplotlib is installed, to ``$OUT`` or ``benches/results``.
Exit status: 0, or 1 where a test fails or a goal is missed, or 2 where there is no CUDA device.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

import torch

from . import checks, goals, machine, picture, report, results, running
from .budget import Budget
from .cases import CASES
from .measuring import Measure, estimate


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m benches.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of it (8)")
    parser.add_argument("--rows", default="", help="only rows whose name holds this text")
    return parser.parse_args(arguments)


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
    budget = Budget(options.minutes)
    kept: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "minutes": options.minutes,
        "machine": machine.describe(),
    }
    path = results.file_for(kept["machine"]["name"], results.folder())
    print(f"{kept['machine']['name']}: the tests first", flush=True)
    kept["tests"] = checks.run()
    kept["trustworthy"] = checks.trustworthy(kept["tests"])
    print(f"{budget.used():.0f} s: {report.tests_in_a_line(kept)}", flush=True)
    kept["clocks_before"] = machine.nvidia_smi()

    def written(rows: list[dict[str, Any]]) -> None:
        results.write(path, {**kept, "rows": rows})
        last = rows[-1]
        print(f"{budget.used():.0f} s: {last['id']}: {last['status']}", flush=True)

    kept["rows"] = running.run(cases, Measure(budget), estimate, budget, written)
    kept["clocks_after"] = machine.nvidia_smi()
    found = goals.outcomes(kept["rows"])
    kept["goals"] = goals.as_data(found)
    results.write(path, kept)
    print()
    print(report.text(kept, found))
    print(picture.draw(kept, path.with_suffix(".png")))
    print(f"results: {path.name}")
    return 0 if kept["trustworthy"] and all(one.reached for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
