"""The order of a kernel's accesses to global memory, read from its machine code.

Programs that share a sum count themselves, and the last one adds the shares of all. Another
program's share is there to be read if every thread stores and then waits for the others, one thread
orders that for all of the GPU, counts, and forgets what its cache holds; and if all wait for that
thread before they read, from where all programs see the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

# What of the code is looked at, each by a letter.
_KINDS = {
    "S": ("store", r"STG"),
    "B": ("barrier", r"BAR\.SYNC"),
    "F": ("fence", r"MEMBAR\.(?:ALL|SC)\.(?:GPU|SYS)"),
    "A": ("count", r"ATOMG\b.*\.ADD\.STRONG\.GPU"),
    "I": ("invalidation", r"CCTL\.IVALL"),
    "R": ("strong read", r"LDG\b.*\.STRONG\.GPU"),
    "W": ("weak read", r"LDG\b"),
    "J": ("jump target", r"\.L\w+:"),
}
_LINE = re.compile(r"^(?:\s*/\*[0-9a-f]+\*/\s+(?:@(!?U?P\w+)\s+)?)?([A-Z.][\w.:]*)", re.MULTILINE)
# Nobody jumps in between the fence and the count. After it the counter is set to zero, and a bias
# may be read early.
_ARRIVAL = re.compile("S[JW]*B[JW]*FAIJ*B[JSW]*R")


class _Step(NamedTuple):
    kind: str
    predicate: str


def _steps(disassembly: str) -> Iterator[_Step]:
    for predicate, instruction in _LINE.findall(disassembly):
        for kind, (_, pattern) in _KINDS.items():
            if re.match(pattern, instruction):
                yield _Step(kind, predicate)
                break


def accesses(disassembly: str) -> str:
    """The letters of the code's steps, each run of one kind as one.

    A barrier that not every thread comes to is left out, and so is a fence or an invalidation of
    other threads than the one that counts.
    """
    steps = [*_steps(disassembly)]

    def holds(i: int) -> bool:
        kind, predicate = steps[i]
        if not predicate or kind not in "BFI":
            return True
        count = {"B": None, "F": i + 1, "I": i - 1}[kind]
        return count is not None and steps[count : count + 1] == [_Step("A", predicate)]

    kept = (step.kind for i, step in enumerate(steps) if holds(i))
    return "".join(kind for kind, _ in groupby(kept))


def counts(found: str) -> int:
    """How often the code counts an arrival."""
    return found.count("A")


def out_of_order(found: str) -> list[str]:
    """What stands around each count that is not in order."""
    right = {match.start() + match.group().index("A") for match in _ARRIVAL.finditer(found)}
    wrong = [i for i, kind in enumerate(found) if kind == "A" and i not in right]
    return [", ".join(_KINDS[k][0] for k in found[max(0, i - 4) : i + 5]) for i in wrong]
