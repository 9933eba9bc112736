"""A run as it could be: its machine, its tests, its rows; and a clock that goes when told to."""

from __future__ import annotations

from benches.gpu import peers, running
from benches.gpu.budget import Budget
from benches.gpu.cases import BOTH, CASES, Case
from benches.gpu.passes import PASSES

MACHINE = {
    "name": "NVIDIA Sample 80GB",
    "capability": "9.0",
    "multiprocessors": 132,
    "driver": "580.1",
    "cuda": "13.0",
    "torch": "2.11.0",
    "triton": "3.6.0",
    "commit": "abc1234",
}
FILE = "nvidia-sample-80gb"
TESTS = {
    "passed": True,
    "summary": "700 passed in 61.00s",
    "failures": [],
    "failure_count": 0,
    "smoke": {"passed": True, "summary": "20 exact, 0 failed", "failures": []},
    "sanitizer": {"passed": True, "lines": []},
}
RED = {**TESTS, "passed": False, "summary": "3 failed, 697 passed"}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def figures(median, **more):
    return {"median": median, "low": 0.99 * median, "high": 1.01 * median, "rounds": 21, **more}


def sample_measure(case: Case, names, beside=(), seconds=1e9, **slower: float):
    """Every goal is met; ``slower`` multiplies the time of one peer."""
    batch, _, hidden, _ = case.shape
    activation = batch * hidden * (2 if case.dtype == "bfloat16" else 4)
    ours = case.operations / 500e12 + 10e-6
    factors = {
        peers.EAGER: 4.0,
        peers.CONTROL: 4.0,
        peers.DEFAULT: 1.01,
        peers.COMPILED: 3.5,
        peers.AUTOTUNED: 1.25,
        peers.GRAPH: 1.5,
        peers.PRODUCTS: 0.99,
        peers.OURS: 1.0,
        peers.OUR_GRAPH: 0.9,
        peers.RECOMPUTE: 1.2,
    }
    times = {name: ours * factors[name] * slower.get(name, 1.0) for name in (*names, *beside)}
    found = {name: figures(times[name]) for name in names}
    for name in names if beside else ():
        found[name]["beside"] = {other: times[other] for other in beside}
    for name, error in ((peers.OURS, 1.5e-7), (peers.EAGER, 1e-7)):
        if name in found:
            found[name]["errors"] = {"y": error}
    if case.work == BOTH:
        for name, held in ((peers.OURS, activation + 512), (peers.RECOMPUTE, 512)):
            if name in found:
                found[name] |= {"held_bytes": held, "peak_bytes": 4 * activation}
    return found


def sample_rows(cases=CASES, passes=PASSES, **slower):
    rows = running.rows_of(cases)
    for one in passes:
        running.run(
            one,
            cases,
            rows,
            lambda *asked: sample_measure(*asked, **slower),
            Budget(1e6, Clock()),
            lambda one, row: None,
        )
    return rows


def sample(rows=None, **changes):
    return {
        "date": "2026-11-25T12:00:00+00:00",
        "machine": MACHINE,
        "tests": TESTS,
        "trustworthy": True,
        "rows": sample_rows() if rows is None else rows,
        **changes,
    }
