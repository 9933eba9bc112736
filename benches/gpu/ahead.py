"""Compiles kernels before the GPU is needed, by as many processes as there are cores.

The library's own launchers run on tensors without memory, for a driver in the place of the GPU's;
what they compile lies in Triton's cache when the GPU's own driver asks for it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch

from .cases import FORWARD, Case
from .measuring import in_a_line, precision_of

MOST_PROCESSES = 16

Work = Callable[[], object]  # calls launchers; goes to another process


class Target(NamedTuple):
    """What decides which kernels are compiled."""

    arch: int
    multiprocessors: int


def target_of(machine: dict[str, Any]) -> Target:
    major, minor = machine["capability"].split(".")
    return Target(10 * int(major) + int(minor), machine["multiprocessors"])


def _step(shape: Sequence[int], dtype: torch.dtype, backward: bool, input_gradient: bool) -> None:
    from twolayer_kernels.backends import triton as backend

    batch, in_features, hidden, out = shape

    def new(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    x, w1, w2, b1, b2 = (
        new(batch, in_features), new(hidden, in_features), new(out, hidden), new(hidden), new(out)
    )  # fmt: skip
    _, a = backend.two_layer_forward(x, w1, w2, b1, b2, backward)
    if backward:
        needs = (input_gradient, True, True, True, True)
        for activation in (a, None):  # kept, and computed again
            backend.two_layer_backward(new(batch, out), x, w1, w2, b1, activation, needs)


def a_row(case: Case) -> None:
    """The work of a row."""
    with precision_of(case):
        _step(case.shape, getattr(torch, case.dtype), case.work != FORWARD, case.input_gradient)


def a_network(precision: str, shape: Sequence[int]) -> None:
    """The work of the tuner on one network."""
    from twolayer_kernels.backends.triton import tuning

    with tuning.in_precision(precision):
        _step(shape, dict(tuning.MODES)[precision], backward=True, input_gradient=True)


def a_candidate(precision: str, kernel: str, tile: Any) -> None:
    """The work of the tuner on one tile."""
    from twolayer_kernels.backends.triton import layers, tuning

    dtype, device = dict(tuning.MODES)[precision], torch.device("meta")
    with tuning.in_precision(precision):
        layers.product(kernel, **tuning.operands(kernel, dtype, device), tile=tile)


def products_of_a_network(precision: str, shape: Sequence[int]) -> None:
    """The work of the tuner on the single products of one network."""
    from twolayer_kernels.backends.triton import products, tuning

    with tuning.in_precision(precision), products.chosen(torchs=False):
        for function, shapes in tuning.products_of(*shape).values():
            dtype = dict(tuning.MODES)[precision]
            function(*(torch.empty(size, dtype=dtype, device="meta") for size in shapes))


def of_rows(cases: Iterable[Case]) -> list[Work]:
    return [partial(a_row, case) for case in cases]


def of_the_tuner(target: Target) -> list[Work]:
    """Everything that the tuner measures, with the tiles that ship."""
    from twolayer_kernels.backends.triton import tuning
    from twolayer_kernels.backends.triton.launch import Device
    from twolayer_kernels.backends.triton.tiles import KERNELS

    device = Device("", *target)
    modes = [precision for precision, _ in tuning.MODES]
    tiles: list[Work] = [
        partial(a_candidate, precision, kernel, tile)
        for precision in modes
        for kernel in KERNELS
        for tile in tuning.candidates(kernel, precision, device)
    ]
    singles = [(products_of_a_network, shape) for shape in tuning.LARGE_NETWORKS]
    networks = [(a_network, shape) for shape in tuning.NETWORKS]
    return tiles + [
        partial(work, mode, shape) for mode in modes for work, shape in singles + networks
    ]


@contextmanager
def instead_of_launches(launch: Callable[..., None]) -> Iterator[None]:
    """Every module of the backend that launches kernels calls ``launch``."""
    from twolayer_kernels.backends import triton as backend

    own = backend.launch.launch
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            calls = getattr(module, "launch", None) is own  # prepared launches call it, too
            if calls and name.startswith(f"{backend.__name__}."):
                stack.enter_context(mock.patch.object(module, "launch", launch))
        yield


def key_of(kernel: Any, arguments: tuple[Any, ...], constants: Any, how: Any) -> tuple[Any, ...]:
    """What tells the compiled kernels of two launches apart."""
    from twolayer_kernels.backends.triton import launch

    looked_at = map(launch._specialization, arguments, launch._unspecialized(kernel))
    return kernel, constants, how, *looked_at


class Piece(NamedTuple):
    """One launch of a work, the only one in which a kernel is compiled."""

    work: Work
    place: int  # among the launches of the work


def distinct(works: Iterable[Work], target: Target) -> dict[Any, Piece]:
    """The launches that each compile another kernel, by its key; nothing is compiled here."""
    from tests.compiled import stub

    pieces: dict[Any, Piece] = {}
    with stub.device(*target):
        for work in works:
            keys: list[Any] = []

            def record(
                kernel: Any, grid: Any, arguments: Any, *rest: Any, keys: list[Any] = keys
            ) -> None:
                keys.append(key_of(kernel, arguments, *rest))

            with instead_of_launches(record):
                work()
            for place, key in enumerate(keys):
                pieces.setdefault(key, Piece(work, place))
    return pieces


_entered = ExitStack()


def _stand_in(target: Target) -> None:
    """In a process that only compiles: no kernel can be started any more."""
    import triton

    from tests.compiled import stub

    torch.set_num_threads(1)
    _entered.enter_context(stub.device(*target))
    if torch.version.cuda is not None:
        build = triton.runtime.driver.active.launcher_cls

        def with_the_real_one(source: Any, metadata: Any) -> Any:
            from triton.backends.nvidia.driver import CudaLauncher

            with suppress(Exception):  # then the first launch of the kernel builds it
                CudaLauncher(source, metadata)
            return build(source, metadata)

        triton.runtime.driver.active.launcher_cls = with_the_real_one


def _compile(piece: Piece) -> str | None:
    """Why it could not be compiled, or ``None``."""
    from triton.runtime.errors import OutOfResources

    from twolayer_kernels.backends.triton.launch import launch

    count = iter(range(1 << 30))

    def only_one(*arguments: Any) -> None:
        if next(count) == piece.place:
            launch(*arguments)

    try:
        with instead_of_launches(only_one):
            piece.work()
    except OutOfResources:  # the tuner passes over it, too
        return None
    except Exception as error:  # the others are to be compiled all the same
        return in_a_line(error)
    return None


def compile_all(works: Iterable[Work], target: Target, seconds: float) -> dict[str, Any]:
    """Compiles for ``seconds`` at most; the counts. What is missing is compiled when needed."""
    end = time.monotonic() + seconds
    pieces = list(distinct(works, target).values())
    done, failures = 0, []
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(MOST_PROCESSES, os.cpu_count() or 1), _stand_in, (target,)) as pool:
        outcomes = pool.imap_unordered(_compile, pieces)
        with suppress(multiprocessing.TimeoutError):
            for _ in pieces:
                failure = outcomes.next(max(0.01, end - time.monotonic()))
                done += 1
                failures += [failure] * (failure is not None)
    return {"kernels": len(pieces), "done": done, "failures": failures}
