"""``python -m benches``: runs every bench and prints the tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from . import machine, table

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
    results["machine"] = before | {"peak_after": machine.peaks()}
    RESULTS.write_text(json.dumps(results, indent=1))
    table.show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
