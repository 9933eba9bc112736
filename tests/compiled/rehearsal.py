"""A GPU for the bench that is not there: launches go to the stand-in driver, a clock is charged.

Tensors have no memory (``meta``), so that the largest network costs nothing; our kernels are looked
up, compiled and launched by the library's own code. Each action is charged what it may cost on an
H100, rather too much than too little.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import torch

from benches.gpu import __main__ as command
from benches.gpu import ahead, checks, machine, measuring, parts, peers, profiling, timing
from benches.gpu.budget import Budget
from benches.gpu.cases import FORWARD, Case
from tests.gpu_bench.samples import MACHINE, TESTS, Clock
from twolayer_kernels import dispatch
from twolayer_kernels.backends import triton as backend
from twolayer_kernels.backends.triton import tiles, tuning
from twolayer_kernels.backends.triton.launch import launch as launch_kernel

from . import stub

# Seconds of each action.
PYTHON_AND_TORCH = 8.0  # also of a process that the bench starts
KERNEL = 2.0  # compiled by one core: about 1 s where this was written
CORES = 16
ALL_TESTS = 100.0
TUNER = 75.0  # whose kernels are compiled
FIRST_COMPILE, COMPILE, COMPILE_FORWARD = 20.0, 6.0, 3.0
AUTOTUNE, AUTOTUNE_FORWARD = 30.0, 12.0
CAPTURE = 0.1
PROFILE = 3.0
CHECK = 0.05
# Operations a second, of ours and of torch, and what a call costs the host.
OUR_RATES = {"bfloat16": 400e12, "tf32": 200e12, "float32": 80e12}
TORCH_RATES = {"bfloat16": 450e12, "tf32": 220e12, "float32": 35e12}
FLOAT64_RATE = 30e12
HOST = 150e-6
OURS = (peers.OURS, peers.OUR_GRAPH, peers.RECOMPUTE)


class Rehearsal:
    """The stand-ins; what happened, for a test to look at."""

    def __init__(self, monkeypatch, out: Path, only_recorded: bool = False) -> None:
        """With ``only_recorded`` launches are noted, and nothing is compiled."""
        self.clock = Clock()
        self._only_recorded = only_recorded
        self.out = out
        self.tests_take = ALL_TESTS
        self.slowness = 1.0  # of all that a row is made of
        self.compiled: set = set()  # keys of kernels
        self.late: list[str] = []  # kernels that a row had to wait for
        self.launches: Counter = Counter()  # by kernel
        self.workers = 0
        self._compilers_started = False
        self._timed: set = set()
        self._monkeypatch = monkeypatch
        self._install()

    def charge(self, seconds: float) -> None:
        self.clock.now += seconds

    def _install(self) -> None:
        put = self._monkeypatch.setattr
        self._monkeypatch.setenv("OUT", str(self.out))
        self._monkeypatch.setenv("TWOLAYER_CACHE", str(self.out / "nowhere"))
        put(torch.cuda, "is_available", lambda: True)
        put(torch.cuda, "synchronize", lambda: None)
        put(torch.cuda, "empty_cache", lambda: None)
        put(torch.compiler, "reset", lambda: None)
        put(measuring, "gc", SimpleNamespace(collect=lambda: None))
        put(machine, "describe", self.describe)
        put(machine, "nvidia_smi", dict)
        put(command, "Budget", lambda seconds: Budget(seconds, self.clock))
        put(checks, "run", self.check)
        put(ahead, "compile_all", self.compile_all)
        put(parts, "Child", lambda *_: Tuner(self))
        put(parts, "Worker", lambda: Worker(self))
        put(profiling, "table", self.profile)
        put(measuring, "Network", lambda case: peers.Network(case, device="meta"))
        put(measuring, "_timer", lambda: self.time)
        put(timing, "host_seconds", self.host_seconds)
        put(timing, "peak_bytes", self.one_step)
        put(timing, "held_bytes", self.one_step)
        put(peers, "check", self.check_results)
        put(peers, "replayed", lambda call: self.charge(CAPTURE) or call)
        put(peers, "compiled", self.compile_network)
        put(measuring, "PEERS", {n: self._building(n, b) for n, b in peers.PEERS.items()})
        put(backend, "unsupported", lambda *_: None)

    # What the calls are made of.

    def describe(self):
        self.charge(PYTHON_AND_TORCH)
        return MACHINE

    def check(self, results: Path, seconds: float):
        self.charge(min(seconds, self.tests_take))
        if self.tests_take <= seconds:
            return TESTS
        return TESTS | checks.judged_tests(None, ["tests/cuda/x.py::test_x PASSED"], seconds)

    def compile_all(self, works, target, seconds):
        pieces = ahead.distinct(works, target)
        self.compiled |= pieces.keys()
        self.charge(min(seconds, PYTHON_AND_TORCH + KERNEL * -(-len(pieces) // CORES)))
        return {"kernels": len(pieces), "done": len(pieces), "failures": []}

    def profile(self, case: Case) -> str:
        self.charge(PROFILE)
        return case.id

    def _building(self, name: str, build):
        def built(network: peers.Network):
            call = build(network)

            def run():
                return call()

            run.case, run.peer = network.case, name
            return run

        return built

    def compile_network(self, network: peers.Network, mode: str = ""):
        forward = network.case.work == FORWARD
        if mode:
            self.charge(AUTOTUNE_FORWARD if forward else AUTOTUNE)
        else:
            self.charge(COMPILE_FORWARD if forward else COMPILE)
        self.charge(0.0 if self._compilers_started else FIRST_COMPILE)
        self._compilers_started = True
        return peers.running(network, network.plain)

    # Timing.

    def _takes(self, call) -> float:
        rates = OUR_RATES if call.peer in OURS else TORCH_RATES
        return self.slowness * HOST + call.case.operations / rates[call.case.precision]

    def time(self, call, count: int) -> float:
        if call not in self._timed:  # nothing changes from call to call
            self._timed.add(call)
            call()
        self.charge(100e-6 + count * self._takes(call))
        return self._takes(call)

    def host_seconds(self, call) -> float:
        self.charge(220 * self._takes(call))
        return HOST

    def one_step(self, call) -> int:
        self.charge(self.slowness * 0.05)
        call()
        return 0

    def check_results(self, case: Case, results, exacts):
        """Without values, what is left is their names, shapes and types."""
        assert results.keys() >= exacts.keys()
        for name, wanted in exacts.items():
            assert results[name].shape == wanted.shape
            assert results[name].dtype == getattr(torch, case.dtype)
        self.charge(self.slowness * (CHECK + case.operations / FLOAT64_RATE))
        return dict.fromkeys(exacts, 1e-7)

    def launched(self, kernel, grid, arguments, constants, how) -> None:
        """As the library launches; a kernel that was not compiled ahead is waited for."""
        key = ahead.key_of(kernel, arguments, constants, how)
        if key not in self.compiled:
            self.compiled.add(key)
            self.late.append(kernel.__name__)
            self.charge(KERNEL)
        self.launches[kernel.__name__] += 1
        if not self._only_recorded:
            launch_kernel(kernel, grid, arguments, constants, how)


class Worker:
    """Measures in this process, and sees to it that a limit holds."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal
        self._stack = ExitStack()

    def __enter__(self):
        self._rehearsal.charge(PYTHON_AND_TORCH)
        self._rehearsal.workers += 1
        tiles.forget_tables()
        dispatch.choose.cache_clear()
        driver = self._stack.enter_context(stub.device(90))
        self._stack.enter_context(ahead.instead_of_launches(self._rehearsal.launched))
        self._driver = driver
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()
        dispatch.choose.cache_clear()
        tiles.forget_tables()

    def call(self, function, *arguments, seconds: float):
        clock = self._rehearsal.clock
        end = clock.now + seconds
        found = function(*arguments)
        if clock.now > end:
            clock.now = end
            raise TimeoutError(f"not ready within {seconds:.0f} s")
        return found


class Tuner:
    """``twolayer tune``, which writes an empty table."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def finish(self, seconds: float) -> int | None:
        self._rehearsal.charge(min(seconds, TUNER))
        path = tiles.tuned_table_path(MACHINE["name"])
        tuning.write({"tiles": [], "against_torch": []}, path)
        return 0 if seconds >= TUNER else None

    def lines(self) -> list[str]:
        return [f"written: {os.environ['TWOLAYER_CACHE']}"]
