"""Measures one row: builds its peers, checks what each computes, and times those that are right."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from . import peers, timing
from .budget import Budget, limited
from .cases import BOTH, Case
from .peers import EAGER, OURS, PEERS, PRODUCTS, RECOMPUTE, SLOW_BUILDS, Call, Network

# Operations a second, for a guess at the time that a row will take.
_RATES = {"bfloat16": 400e12, "tf32": 200e12, "float32": 25e12}
_MEASURED_MEMORY = (EAGER, OURS, RECOMPUTE)


def estimate(case: Case) -> float:
    """Seconds for a row without the peers that are slow to build."""
    calls = 8 * (timing.ROUNDS + 10)
    return 4.0 + calls * max(case.operations / _RATES[case.precision], timing.BLOCK_SECONDS)


@contextmanager
def _float32(case: Case) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if case.tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def in_a_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


class Measure:
    """``measure(case)``: what is known of a row, as it goes into the JSON."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._builds = dict(SLOW_BUILDS)
        self._timer = timing.Events()

    def __call__(self, case: Case) -> dict[str, Any]:
        try:
            with _float32(case):
                return self._measure(case)
        finally:
            torch.compiler.reset()
            gc.collect()
            torch.cuda.empty_cache()

    def _measure(self, case: Case) -> dict[str, Any]:
        torch.compiler.reset()
        network = Network(case)
        found: dict[str, dict[str, Any]] = {}
        calls = self._build(case, network, found)
        for name, figures in timing.time_in_turn(calls, self._timer).items():
            found[name] |= figures
        if case.small:
            for name, call in calls.items():
                found[name]["host"] = timing.host_seconds(call)
        if case.work == BOTH:
            for name in _MEASURED_MEMORY:
                if name in calls:
                    found[name]["peak_bytes"] = timing.peak_bytes(calls[name])
                    found[name]["held_bytes"] = timing.held_bytes(_forward(network, name))
        return {"peers": found}

    def _build(
        self, case: Case, network: Network, found: dict[str, dict[str, Any]]
    ) -> dict[str, Call]:
        """The calls that compute the right thing; of the others ``found`` says why not."""
        exacts = peers.exact(network)
        calls: dict[str, Call] = {}
        for name in peers.peers_of(case):
            needed = self._builds.get(name, 0.0)
            if needed and not self._budget.fits(needed + estimate(case)):
                found[name] = {"error": "skipped: no time left to build it"}
                continue
            began = self._budget.used()
            try:
                with limited(self._budget.left() if name in SLOW_BUILDS else 120.0):
                    call = PEERS[name](network)
                    results = call()
                    torch.cuda.synchronize()
                found[name] = {"errors": peers.check(case, results, _of(name, exacts))}
                calls[name] = call
            except Exception as error:  # a peer that fails is a finding, not the end of the run
                found[name] = {"error": in_a_line(error)}
            if name in SLOW_BUILDS:
                took = self._budget.used() - began
                self._builds[name] = max(took, (self._builds[name] + took) / 2)
        return calls


def _of(name: str, exacts: peers.Results) -> peers.Results:
    return {} if name == PRODUCTS else exacts


def _forward(network: Network, name: str) -> Any:
    model = network.plain if name == EAGER else network.fused(recompute=name == RECOMPUTE)
    return lambda: model(network.x)
