"""The list of rungs: each pairs a tutorial's way to train with its fused twin, and with `fit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from . import by_hand, with_modules
from .by_hand import Fit, Step
from .problem import Problem

Make = Callable[[Problem], Step]
MakeFit = Callable[[Problem], Fit | None]


@dataclass(frozen=True)
class Rung:
    """One row of the table.

    Args:
        name: what ``--rung`` takes; several rows may share it.
        variant: what sets this row apart from others of its name.
        plain, fused: make each side's step from the same problem.
        chaotic: float32 rounding alone, grown over the steps, moves this curve at will.
        fit: makes what takes many steps in one call; ``None`` where the rung's own loop, its raw
            tensors or its device are not for ``fit``.
        check: what is wrong beside the losses, if anything.
    """

    name: str
    variant: str
    plain: Make
    fused: Make
    chaotic: bool = False
    fit: MakeFit = lambda problem: None
    check: Callable[[Problem], str | None] = lambda problem: None

    @property
    def title(self) -> str:
        return f"{self.name} ({self.variant})" if self.variant else self.name


def _with_modules(
    name: str,
    variant: str,
    make: Callable[..., Step],
    make_fit: Callable[..., Fit | None],
    **options: object,
) -> Rung:
    return Rung(
        name,
        variant,
        partial(make, fused=False, **options),
        partial(make, fused=True, **options),
        fit=partial(make_fit, **options),
    )


def _sequential(variant: str, bias: bool, normal: bool) -> Rung:
    make, make_fit = with_modules.sequential, with_modules.sequential_fit
    return _with_modules("sequential", variant, make, make_fit, bias=bias, normal=normal)


def _optim(variant: str, make_optimizer: with_modules.MakeOptimizer) -> Rung:
    make, make_fit = with_modules.optim, with_modules.optim_fit
    return _with_modules("optim", variant, make, make_fit, make_optimizer=make_optimizer)


def _module(variant: str, bias: bool, make_optimizer: with_modules.MakeOptimizer) -> Rung:
    options = {"bias": bias, "make_optimizer": make_optimizer}
    return _with_modules("module", variant, with_modules.module, with_modules.module_fit, **options)


def _chain_side(problem: Problem, fused: bool) -> Step:
    step, _ = by_hand.chain(problem, fused)
    return step


CHAIN_GRADIENTS = (2.0, 1.0, 1.0)


def check_chain(problem: Problem) -> str | None:
    """Small integers: both sides must have the gradients exactly."""
    for side, fused in (("plain", False), ("fused", True)):
        step, gradients = by_hand.chain(problem, fused)
        step()
        if gradients() != CHAIN_GRADIENTS:
            return f"{side} gradients {gradients()} instead of {CHAIN_GRADIENTS}"
    return None


RUNGS = (
    Rung(
        "numpy",
        "no bias",
        partial(by_hand.numpy_plain, bias=False),
        partial(by_hand.numpy_fused, bias=False),
        fit=partial(by_hand.numpy_fit, bias=False),
    ),
    Rung(
        "numpy",
        "bias",
        partial(by_hand.numpy_plain, bias=True),
        partial(by_hand.numpy_fused, bias=True),
        fit=partial(by_hand.numpy_fit, bias=True),
    ),
    Rung("tensors", "", by_hand.tensors_plain, by_hand.tensors_fused),
    Rung("autograd", "", by_hand.autograd_plain, by_hand.autograd_fused),
    Rung("columns", "", by_hand.columns_plain, by_hand.columns_fused),
    Rung("function", "", by_hand.function_plain, by_hand.function_fused),
    _sequential("normal", bias=False, normal=True),
    _sequential("bias", bias=True, normal=False),
    _optim("SGD", with_modules.sgd),
    _optim("momentum", with_modules.momentum),
    _optim("RMSprop", with_modules.rmsprop),
    _optim("Adam", with_modules.adam),
    _module("no bias", bias=False, make_optimizer=with_modules.adam),
    _module("bias", bias=True, make_optimizer=with_modules.sgd),
    Rung(
        "dynamic",
        "",
        partial(with_modules.dynamic, fused=False),
        partial(with_modules.dynamic, fused=True),
        chaotic=True,
    ),
    Rung(
        "chain",
        "",
        partial(_chain_side, fused=False),
        partial(_chain_side, fused=True),
        check=check_chain,
    ),
)

NAMES = tuple(dict.fromkeys(rung.name for rung in RUNGS))


def named(names: list[str]) -> list[Rung]:
    """The rungs of these names, in the ladder's order; all of them for no names.

    Raises:
        ValueError: a name is unknown.
    """
    for name in names:
        if name not in NAMES:
            raise ValueError(f"--rung must be one of {', '.join(NAMES)}, got {name!r}")
    return [rung for rung in RUNGS if not names or rung.name in names]
