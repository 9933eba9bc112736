"""The orders in which the interpreter runs the programs of a launch, which are a GPU's to choose.

The interpreter runs one program after another, in the order of the grid. Here they also run in
other orders, and as threads that take turns at every access to memory. An access is seen by all
programs at once: what a GPU's memory may delay besides is for ``tests/compiled`` to look at.
"""

from __future__ import annotations

import contextvars
import inspect
import itertools
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager

import pytest
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, interpreter_builder

Program = tuple[int, int, int]
# Runs all programs; each by one call, once ``interpreter_builder.grid_idx`` names it.
Schedule = Callable[[Sequence[Program], Callable[[], None]], None]

# What a program may be interrupted before, and how often it is.
ACCESSES = ("create_masked_load", "create_masked_store", "create_atomic_rmw")
INTERRUPTED = 0.15


def in_order(programs: Sequence[Program], run: Callable[[], None]) -> None:
    for program in programs:
        interpreter_builder.grid_idx = program
        run()


def backwards(programs: Sequence[Program], run: Callable[[], None]) -> None:
    in_order(programs[::-1], run)


def shuffled(seed: int) -> Schedule:
    """Whole programs in a random order, another one at each launch."""
    generator = random.Random(seed)
    return lambda programs, run: in_order(generator.sample(programs, len(programs)), run)


def interleaved(seed: int) -> Schedule:
    """Programs that are interrupted at random, just before an access to memory, by others.

    Interruptions are rare and may be long, as in probabilistic concurrency testing: where all are
    equally likely to go on at every access, they all come to a race's two ends at different times.
    """
    generator = random.Random(seed)

    def schedule(programs: Sequence[Program], run: Callable[[], None]) -> None:
        _Turns(generator, generator.sample(programs, len(programs)), run).take()

    return schedule


class _Turns:
    """The programs of one launch as threads, of which only the first in the queue runs."""

    def __init__(self, generator: random.Random, queue: list[Program], run) -> None:
        self._generator, self._queue, self._run = generator, queue, run
        self._turns = {program: threading.Semaphore(0) for program in queue}
        self._ended = threading.Event()
        self._failure: BaseException | None = None

    def take(self) -> None:
        # Each thread in a copy of the context, which holds what NumPy warns of.
        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(self._program, turn))
            for turn in self._turns.values()
        ]
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name in ACCESSES:
                access = getattr(InterpreterBuilder, name)
                monkeypatch.setattr(InterpreterBuilder, name, self._interrupted_before(access))
            for thread in threads:
                thread.start()
            self._go_on()
            self._ended.wait()
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure

    def _go_on(self) -> None:
        program = self._queue[0]
        interpreter_builder.grid_idx = program
        self._turns[program].release()

    def _interrupted_before(self, access):
        def interrupted(builder, *arguments, **keywords):
            if self._generator.random() < INTERRUPTED:
                program = self._queue.pop(0)
                self._queue.insert(self._generator.randint(0, len(self._queue)), program)
                self._go_on()
                self._turns[program].acquire()
            return access(builder, *arguments, **keywords)

        return interrupted

    def _program(self, turn: threading.Semaphore) -> None:
        turn.acquire()
        try:
            self._run()
        except BaseException as failure:
            self._failure = failure
        self._queue.pop(0)
        if self._queue:
            self._go_on()
        else:
            self._ended.set()


@contextmanager
def scheduled(schedule: Schedule):
    """Launches inside run by ``schedule``; gives a set that fills with the kernels' names."""
    names: set[str] = set()

    def execute(executor: GridExecutor, *arguments, **keywords) -> None:
        bound = inspect.getcallargs(executor.fn, *arguments, **keywords)
        bound = {
            name: value if name in executor.constexprs else interpreter._implicit_cvt(value)
            for name, value in bound.items()
        }
        x, y, z = (*executor.grid, 1, 1)[:3]
        interpreter._patch_lang(executor.fn)  # once a module, see hastened()
        interpreter_builder.set_grid_dim(x, y, z)
        names.add(executor.fn.__name__)
        programs = [*itertools.product(range(x), range(y), range(z))]
        schedule(programs, lambda: executor.fn(**bound))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(GridExecutor, "__call__", execute)
        yield names
