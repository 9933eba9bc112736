"""``python -m benches.kernels``: what the Triton compiler makes of every kernel that ships.

Compiles every shipped configuration for GPUs that need not be there and prints what each needs; the
exit status is 1 where a gate of ``tests/compiled`` is not passed.
"""

from __future__ import annotations

import argparse
import sys

import triton
from rich.console import Console
from rich.table import Table

from tests.compiled import configurations, cubins, gates, stub

_LOADS_AND_STORES = ("LDGSTS", "UTMALDG", "UTMASTG", "STL", "LDL")


def _counts(found: dict[str, int]) -> str:
    return " ".join(f"{count} {name}" for name, count in found.items() if count)


def _products(r: cubins.Resources) -> str:
    return _counts({**r.matrix, "FFMA": r.count("FFMA")})


def _memory(r: cubins.Resources) -> str:
    return _counts({name: r.count(name) for name in _LOADS_AND_STORES})


def show(results: dict[configurations.Configuration, cubins.Resources | str]) -> int:
    """Prints the table, and returns how many configurations do not pass."""
    console = Console(width=190)
    table = Table(title=f"Kernels as compiled by triton {triton.__version__}", title_justify="left")
    for name in ("kernel", "arch", "configuration"):
        table.add_column(name, no_wrap=True)
    for name in ("warps/stages", "registers", "stack", "shared"):
        table.add_column(name, justify="right")
    for name in ("matrix instructions", "loads and stores", "gates"):
        table.add_column(name, overflow="fold")
    failed = 0
    for c, r in results.items():
        broken = gates.broken(c, r)
        failed += bool(broken)
        how = f"{c.tile.how.warps}/{c.tile.how.stages}" if c.tile else ""
        sizes = ("", "", "", "", "")
        if isinstance(r, cubins.Resources):
            sizes = (f"{r.registers}", f"{r.stack}", f"{r.shared:,}", _products(r), _memory(r))
        status = "; ".join(broken) if broken else "ok"
        table.add_row(c.kernel, f"sm_{c.arch}", c.detail, how, *sizes, status)
    console.print(table)
    console.print(f"{len(results)} configurations, {failed} of them fail")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.kernels", description=__doc__)
    parser.add_argument(
        "--arch",
        type=int,
        action="append",
        choices=sorted(stub.SHARED_LIMITS),
        help="compute capability, may be given again (default: all)",
    )
    arguments = parser.parse_args()
    wanted = [
        configuration
        for arch in arguments.arch or sorted(stub.SHARED_LIMITS)
        for configuration in configurations.shipped(arch)
    ]
    results = dict(zip(wanted, configurations.compile_all(wanted), strict=True))
    return 1 if show(results) else 0


if __name__ == "__main__":
    sys.exit(main())
