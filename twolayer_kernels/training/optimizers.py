"""``torch.optim``'s optimizers: their groups and states, read for the engine and written back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim import optimizer as of_torch

from ..engine import Reals
from .networks import WRITE_THE_LOOP, Network

Group = dict[str, Any]


def _light(kind: type[Optimizer]) -> type[Optimizer]:
    """The same optimizer, made without loading the compiler, which takes torch a second or more."""
    add = Optimizer.add_param_group
    return type(kind.__name__, (kind,), {"add_param_group": getattr(add, "__wrapped__", add)})


# For those that live no longer than a call.
BY_NAME: dict[str, type[Optimizer]] = {
    "sgd": _light(SGD),
    "adam": _light(Adam),
    "adamw": _light(AdamW),
    "rmsprop": _light(RMSprop),
}


class _Kind(NamedTuple):
    """How one of torch's optimizers is told to the engine.

    ``states`` are the names of the tensors in its state, in the engine's order; each is there only
    where ``wants`` says so of the group.
    """

    name: Callable[[Group], str]
    options: Callable[[Group], dict[str, Any]]
    states: tuple[str, ...]
    wants: Callable[[Group], tuple[bool, ...]]
    counts: bool  # whether it keeps the number of its steps


def _adam_options(group: Group) -> dict[str, Any]:
    beta1, beta2 = group["betas"]
    return {
        "beta1": float(beta1),
        "beta2": float(beta2),
        "eps": group["eps"],
        "amsgrad": group["amsgrad"],
    }


_SGD = _Kind(
    name=lambda group: "sgd",
    options=lambda group: {key: group[key] for key in ("momentum", "dampening", "nesterov")},
    states=("momentum_buffer",),
    wants=lambda group: (group["momentum"] != 0,),
    counts=False,
)
_ADAM = _Kind(
    name=lambda group: "adamw" if group["decoupled_weight_decay"] else "adam",
    options=_adam_options,
    states=("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    wants=lambda group: (True, True, group["amsgrad"]),
    counts=True,
)
_RMSPROP = _Kind(
    name=lambda group: "rmsprop",
    options=lambda group: {key: group[key] for key in ("alpha", "eps", "momentum", "centered")},
    states=("square_avg", "momentum_buffer", "grad_avg"),
    wants=lambda group: (True, group["momentum"] > 0, group["centered"]),
    counts=True,
)
_KINDS: dict[type[Optimizer], _Kind] = {SGD: _SGD, Adam: _ADAM, AdamW: _ADAM, RMSprop: _RMSPROP}
_LIGHT = dict(zip(BY_NAME.values(), (_SGD, _ADAM, _ADAM, _RMSPROP), strict=True))


def _options(kind: _Kind, group: Group) -> dict[str, Any]:
    return {
        "lr": float(group["lr"]),
        "weight_decay": float(group["weight_decay"]),
        "maximize": group["maximize"],
        **kind.options(group),
    }


# What the engine is told for each step anew.
_RATES = ("lr", "momentum", "beta1")


def _lasting(kind: _Kind, group: Group) -> dict[str, Any]:
    """The options that are the same for all steps between two looks."""
    return {k: v for k, v in _options(kind, group).items() if k not in _RATES}


def _step_dtype() -> torch.dtype:
    """Of the optimizer's count of steps, as torch keeps it; half precision would stick at 256."""
    return torch.float64 if torch.get_default_dtype() is torch.float64 else torch.float32


def _alike(t: Tensor) -> Tensor:
    return torch.zeros_like(t, memory_format=torch.preserve_format)


class Mover:
    """What moves one parameter: its group, and its state as the engine reads and writes it."""

    def __init__(self, kind: _Kind, group: Group, parameter: Tensor, state: dict[str, Any]) -> None:
        self.kind, self.group, self.parameter = kind, group, parameter
        self.fresh = not state or (not kind.counts and state.get(kind.states[0]) is None)
        self.steps = int(state["step"]) if kind.counts and state else int(not self.fresh)
        wanted = zip(kind.states, kind.wants(group), strict=True)
        self.states: dict[str, Tensor] = {}
        for name in (name for name, wants in wanted if wants):
            if kind.counts and not self.fresh and name not in state:
                raise KeyError(name)  # as torch does where an option was turned on since
            kept = state.get(name)
            self.states[name] = _alike(parameter) if kept is None else kept
            if self.states[name].dtype != parameter.dtype:
                raise NotImplementedError(
                    f"fit: the optimizer's {name} is {self.states[name].dtype} beside a"
                    f" {parameter.dtype} parameter{WRITE_THE_LOOP}"
                )

    def options(self) -> dict[str, Any]:
        return _options(self.kind, self.group)

    def rate(self) -> tuple[float, float]:
        """What a scheduler may change from step to step: learning rate, momentum or first beta."""
        group = self.group
        momentum = group["betas"][0] if "betas" in group else group["momentum"]
        return float(group["lr"]), float(momentum)

    def write_back(self, optimizer: Optimizer, steps: int) -> None:
        if steps == 0 or not (self.kind.counts or self.states):
            return
        state = optimizer.state[self.parameter]
        if self.kind.counts:
            kept = state.get("step")
            if kept is None:
                state["step"] = torch.tensor(float(self.steps + steps), dtype=_step_dtype())
            else:
                state["step"] = kept.fill_(self.steps + steps)
        for name, tensor in self.states.items():
            state[name] = tensor


def _check_group(group: Group) -> None:
    for flag in ("capturable", "differentiable"):
        if group.get(flag):
            raise NotImplementedError(f"fit: the optimizer has {flag}=True{WRITE_THE_LOOP}")


def _hooks_of(optimizer: Optimizer) -> tuple[Any, ...]:
    """What is called around its steps, if anything."""
    return (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        of_torch._global_optimizer_pre_hooks,
        of_torch._global_optimizer_post_hooks,
    )


class Movers:
    """The four parameters' movers; ``None`` for one that stays."""

    def __init__(self, optimizer: Optimizer, network: Network) -> None:
        kind = _KINDS.get(type(optimizer)) or _LIGHT.get(type(optimizer))
        if kind is None:
            known = ", ".join(kind.__name__ for kind in _KINDS)
            raise NotImplementedError(
                f"fit: optimizer must be one of {', '.join(BY_NAME)} or torch.optim's {known}, got"
                f" {type(optimizer).__name__}{WRITE_THE_LOOP}"
            )
        self.optimizer, self._kind = optimizer, kind
        self.look(network)

    def _groups(self) -> dict[int, Group]:
        """The group of each parameter, by its identity."""
        return {id(p): group for group in self.optimizer.param_groups for p in group["params"]}

    def look(self, network: Network) -> None:
        """Takes the parameters', groups' and states' present condition for what moves them."""
        if any(_hooks_of(self.optimizer)):
            raise NotImplementedError(
                f"fit: the optimizer has step hooks, which it would not run{WRITE_THE_LOOP}"
            )
        step = vars(self.optimizer).get("step")  # a scheduler wraps it
        if step is not None and not getattr(step, "_wrapped_by_lr_sched", False):
            raise NotImplementedError(
                f"fit: the optimizer has a step of its own, which it would not run{WRITE_THE_LOOP}"
            )
        groups = self._groups()
        if not any(id(p) in groups for p in network if p is not None):
            raise ValueError("fit: the optimizer holds none of the model's parameters")
        self.movers: list[Mover | None] = []
        for p in network:
            if p is None or not p.requires_grad or id(p) not in groups:
                self.movers.append(None)
                continue
            _check_group(groups[id(p)])
            state = self.optimizer.state.get(p, {})
            self.movers.append(Mover(self._kind, groups[id(p)], p, state))
        if not any(self.movers):
            raise ValueError("fit: all of the model's parameters are frozen: nothing to train")
        names = {mover.kind.name(mover.group) for mover in self.movers if mover}
        if len(names) > 1:
            raise NotImplementedError(
                f"fit: the groups differ in decoupled_weight_decay{WRITE_THE_LOOP}"
            )
        self.name = names.pop()

    def condition(self, network: Network) -> list[Any]:
        """What :meth:`look` would see, besides rates and the values in parameters and states."""
        groups = self._groups()
        found: list[Any] = [any(_hooks_of(self.optimizer)), vars(self.optimizer).get("step")]
        for p in network:
            group = None if p is None or not p.requires_grad else groups.get(id(p))
            if p is None or group is None:
                found.append(None)
                continue
            state = self.optimizer.state.get(p, {})
            tensors = [state.get(name) for name in self._kind.states]
            found.append(
                (
                    *(id(group), self._kind.name(group), self._kind.wants(group)),
                    _lasting(self._kind, group),
                    [None if t is None else (id(t), t.data_ptr(), t.stride()) for t in tensors],
                    int(state["step"]) if "step" in state else None,
                )
            )
        return found

    def constant_rates(self, count: int) -> Reals:
        """The groups' present rates, for so many steps: ``(count, 4, 2)``."""
        now = [(0.0, 0.0) if mover is None else mover.rate() for mover in self.movers]
        return np.tile(np.array(now), (count, 1, 1))

    def rates(self, count: int, advance: Callable[[int], bool]) -> Reals:
        """The rates of so many steps, ``advance(i)`` called after step ``i``: until it is false.

        Raises:
            NotImplementedError: it changes more than rates.
        """
        before, wanted = self._lasting(), self._wants()
        rates = []
        for step in range(count):
            rates.append(self.constant_rates(1))
            if not advance(step):
                break
            if self._wants() != wanted:
                raise NotImplementedError(
                    "fit: the schedule turns momentum on or off, which it may do with"
                    f" schedule_per='epoch' alone{WRITE_THE_LOOP}"
                )
        changed = [
            name
            for old, new in zip(before, self._lasting(), strict=True)
            for name in old
            if old[name] != new[name]
        ]
        if changed:
            raise NotImplementedError(
                f"fit: the schedule changes {changed[0]}, which it may do with"
                f" schedule_per='epoch' alone{WRITE_THE_LOOP}"
            )
        return np.concatenate(rates)

    def _lasting(self) -> list[dict[str, Any]]:
        return [_lasting(mover.kind, mover.group) for mover in self.movers if mover is not None]

    def _wants(self) -> list[tuple[bool, ...]]:
        return [mover.kind.wants(mover.group) for mover in self.movers if mover is not None]

    def write_back(self, steps: int) -> None:
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # schedulers look for it
        for mover in self.movers:
            if mover is not None:
                mover.write_back(self.optimizer, steps)
