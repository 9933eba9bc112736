"""Times forward, forward + backward and a whole SGD step against torch and NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from .timing import REPEATS, check_close, time_call
from .works import CASES, PEERS, Case, eager, peers_of

ROWS = [
    pytest.param(case, peer, id=f"{case.id}-{peer}-{repeat}")
    for case in CASES
    for repeat in range(REPEATS)
    for peer in peers_of(case)
]


@pytest.mark.parametrize(("case", "peer"), ROWS)
def test_network(benchmark: Any, case: Case, peer: str) -> None:
    call = PEERS[peer](case)
    exact = eager(replace(case, dtype=torch.float64))()
    check_close(call(), exact, case.dtype)
    benchmark.extra_info.update(row=case.id, table=case.work, peer=peer, operations=case.operations)
    time_call(benchmark, call)
