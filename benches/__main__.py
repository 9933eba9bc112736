"""``python -m benches``: runs every bench, prints the tables and the goals, draws the curves.

The exit status is 1 where a goal is missed. Arguments go to pytest; with a selection (``-k``) there
are only the tables of what was selected.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch

from . import curves, estimators, fitting, goals, machine, pairs, table

RESULTS = Path("out") / "bench.json"


def main() -> int:
    RESULTS.parent.mkdir(exist_ok=True)
    torch.set_num_threads(machine.THREADS)
    before = machine.describe()
    arguments = [
        "benches",
        "-q",
        "-pno:logging",
        "--tb=short",
        "--override-ini=filterwarnings=ignore",  # the peers' own
        "--benchmark-only",
        "--benchmark-disable-gc",
        "--benchmark-columns=median",
        "--benchmark-quiet",
        f"--benchmark-json={RESULTS}",
        *sys.argv[1:],
    ]
    status = pytest.main(arguments)
    if status != pytest.ExitCode.OK:
        return int(status)  # no figures on a red run
    results = json.loads(RESULTS.read_text())
    whole = len(sys.argv) == 1
    if whole:
        results["pairs"] = pairs.measure()
    results["machine"] = before | {"peak_after": machine.peaks()}
    RESULTS.write_text(json.dumps(results, indent=1))
    table.show(results)
    if not whole:
        return 0
    print(f"curves: {curves.draw()}")
    reached = goals.show(results)
    warnings.simplefilter("ignore")
    reached &= fitting.show()
    return 0 if estimators.show() and reached else 1


if __name__ == "__main__":
    sys.exit(main())
