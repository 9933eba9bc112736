"""Measures peers of one row: builds them, checks what each computes, times those that are right."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from twolayer_kernels import explain

from . import peers, timing
from .cases import BOTH, Case
from .peers import DEFAULT, EAGER, OURS, PEERS, PRODUCTS, RECOMPUTE, Call, Network

_MEASURED_MEMORY = (EAGER, OURS, RECOMPUTE)

Found = dict[str, dict[str, Any]]


@contextmanager
def precision_of(case: Case) -> Iterator[None]:
    """float32 multiplied as the row says."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if case.tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def in_a_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


@cache
def _timer() -> timing.Timer:
    return timing.Events()


def measure(case: Case, names: Sequence[str], beside: Sequence[str] = ()) -> Found:
    """What is known of the peers ``names``, as it goes into the JSON.

    Those in ``beside`` are timed in turn with them, and their times noted with each.
    """
    timer = _timer()
    try:
        torch.compiler.reset()
        with precision_of(case):
            return _measure(case, names, beside, timer)
    finally:
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()


def _measure(case: Case, names: Sequence[str], beside: Sequence[str], timer: timing.Timer) -> Found:
    network = Network(case)
    found: Found = {}
    calls = _build(case, network, [*names, *beside], found)
    times = timing.time_in_turn(calls, timer)
    medians = {name: times[name]["median"] for name in beside if name in times}
    for name in names:
        if name in times:
            found[name] |= times[name] | ({"beside": medians} if medians else {})
    found = {name: found[name] for name in names}
    if case.small:
        for name in names:
            if name in calls:
                found[name]["host"] = timing.host_seconds(calls[name])
    if case.work == BOTH:
        for name in _MEASURED_MEMORY:
            if name in names and name in calls:
                found[name]["peak_bytes"] = timing.peak_bytes(calls[name])
                found[name]["held_bytes"] = timing.held_bytes(_forward(network, name))
    if DEFAULT in found:
        found[DEFAULT]["explained"] = explain(network.fused(by_name=False), network.x)
    return found


def _build(case: Case, network: Network, names: Sequence[str], found: Found) -> dict[str, Call]:
    """The calls that compute the right thing; of the others ``found`` says why not."""
    exacts = peers.exact(network)
    calls: dict[str, Call] = {}
    for name in names:
        try:
            call = PEERS[name](network)
            results = call()
            torch.cuda.synchronize()
            found[name] = {"errors": peers.check(case, results, _of(name, exacts))}
            calls[name] = call
        except Exception as error:  # a peer that fails is a finding, not the end of the run
            found[name] = {"error": in_a_line(error)}
    return calls


def _of(name: str, exacts: peers.Results) -> peers.Results:
    return {} if name == PRODUCTS else exacts


def _forward(network: Network, name: str) -> Call:
    model = network.plain if name == EAGER else network.fused(recompute=name == RECOMPUTE)
    return lambda: {"y": model(network.x)}
