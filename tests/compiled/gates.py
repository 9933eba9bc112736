"""What the code of every kernel that ships must and must not hold."""

from __future__ import annotations

from collections.abc import Iterator

from . import cubins, orders, stub
from .configurations import CASES, NARROW_CASES, Configuration

# Bytes of stack. Rows that start anywhere are loaded element by element, each with an address of
# its own; two of the smallest tiles keep one of them in memory.
_MOST_STACK = {"odd": 8}
# The sums that several programs share: y; the gradients of w1, w2, b1 and b2; columns.
_SHARED_SUMS = {"narrow_forward": 1, "narrow_backward": 4, "column_sums": 1}


def _spills(c: Configuration, r: cubins.Resources) -> Iterator[str]:
    most, local = _MOST_STACK.get(c.operands, 0), r.count("STL", "LDL")
    if r.stack > most or (local and most == 0):
        yield f"spills: {r.stack} bytes of stack, {local} loads and stores of it"


def _matrix_units(c: Configuration, r: cubins.Resources) -> Iterator[str]:
    unit = cubins.MATRIX_UNITS[c.arch]
    if c.kernel == "narrow_forward" and c.tile is not None and c.tile.block_b < 64:
        unit = "HMMA"  # the larger units take 64 rows at least
    if c.precision == "ieee":
        # A TF32 product in it would be silently wrong.
        if r.matrix:
            yield f"multiplies by {r.matrix} what is not to be rounded"
        if not r.count("FFMA", "FFMA2"):  # sm_100 multiplies pairs
            yield "multiplies nothing: no FFMA"
        if c.kernel in NARROW_CASES and not r.count("FADD", "FADD2"):
            yield "sums all of K in one chain: no FADD"
    elif c.kernel in CASES or c.kernel in NARROW_CASES:
        if not r.matrix.get(unit):
            yield f"leaves the matrix units idle: no {unit}, but {r.matrix}"
        if r.count("FFMA", "FFMA2"):
            yield f"multiplies beside the matrix units: {r.count('FFMA', 'FFMA2')} FFMA"


def _loads(c: Configuration, r: cubins.Resources) -> Iterator[str]:
    if c.operands == "descriptors":
        if not r.count("UTMALDG"):
            yield "loads nothing through its descriptors: no UTMALDG"
        if c.case not in ("parts", "added") and not r.count("UTMASTG"):
            yield "stores nothing through its descriptor: no UTMASTG"
    elif (c.operands == "pointers" or c.kernel in NARROW_CASES) and not r.count("LDGSTS"):
        yield "loads while nothing is computed: no LDGSTS"


def _fetches(c: Configuration, r: cubins.Resources) -> Iterator[str]:
    if c.case == "mask-sums" and not r.count("CCTL"):
        yield "waits for its mask: no CCTL that brings it to L2"


def _arrivals(c: Configuration, r: cubins.Resources) -> Iterator[str]:
    expected = _SHARED_SUMS.get(c.kernel, 0) if c.case == "parts" else 0
    if orders.counts(r.accesses) != expected:
        yield f"counts {orders.counts(r.accesses)} kinds of arrivals, not {expected}"
    for found in orders.out_of_order(r.accesses):
        yield f"counts an arrival out of order: {found}"


def broken(c: Configuration, r: cubins.Resources | str) -> list[str]:
    """The gates that a configuration does not pass."""
    if isinstance(r, str):
        return [r]
    found = [*_spills(c, r), *_matrix_units(c, r), *_loads(c, r)]
    found += [*_fetches(c, r), *_arrivals(c, r)]
    if r.shared > stub.SHARED_LIMITS[c.arch]:
        found += [f"needs {r.shared} bytes of shared memory of {stub.SHARED_LIMITS[c.arch]}"]
    return found
