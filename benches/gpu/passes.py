"""The passes over all rows, as data: which peers, beside which, and how long a row may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import peers
from .cases import FORWARD, Case
from .peers import (
    AUTOTUNED,
    COMPILED,
    CONTROL,
    DEFAULT,
    EAGER,
    GRAPH,
    OUR_GRAPH,
    OURS,
    PRODUCTS,
    RECOMPUTE,
)

# Operations a second that any peer reaches on a large row.
_RATES = {"bfloat16": 400e12, "tf32": 200e12, "float32": 25e12}
_STEPS = 130  # of all peers together, at the fewest rounds


class Pass(NamedTuple):
    """Peers that are measured together; a row that takes ``most`` seconds is given up."""

    name: str
    peers: tuple[str, ...]
    beside: tuple[str, ...]
    most: float
    needed: Callable[[Case], float]  # seconds that must be left for a row to be begun

    def peers_of(self, case: Case) -> tuple[str, ...]:
        """Without a backward there is nothing to compute again."""
        return tuple(name for name in self.peers if name != RECOMPUTE or case.work != FORWARD)


def _measured(case: Case) -> float:
    return 2.0 + _STEPS * case.operations / _RATES[case.precision]


def _with_builds(forward: float, both: float) -> Callable[[Case], float]:
    """For peers whose compiler takes about so long."""
    return lambda case: _measured(case) + (forward if case.work == FORWARD else both)


CHEAP = Pass(
    "cheap",
    (OURS, EAGER, DEFAULT, PRODUCTS, GRAPH, OUR_GRAPH, RECOMPUTE, CONTROL),
    (),
    30.0,
    _measured,
)
# Ours again, since the tuner may have changed tiles and who runs by default; so what is held
# against it is timed again, too.
COMPILE = Pass(
    "compile", (COMPILED, OURS, EAGER, DEFAULT, PRODUCTS), (), 45.0, _with_builds(3.0, 6.0)
)
AUTOTUNE = Pass("max-autotune", (AUTOTUNED,), (OURS,), 60.0, _with_builds(12.0, 25.0))
PASSES = (CHEAP, COMPILE, AUTOTUNE)

assert {name for one in PASSES for name in one.peers} == set(peers.PEERS)
