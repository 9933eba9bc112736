"""One run of ``fit``: the engine over a network's own memory, and everything written back after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import engine
from ..engine import Chunk, Reals, Samples, Told
from .forked import num_threads
from .losses import Loss
from .networks import Network
from .optimizers import Mover, Movers


def _fits(t: Tensor) -> bool:
    """Whether the engine can move it where it is: one stride of a matrix is 1, a bias adjacent."""
    if t.dim() == 1:
        return t.is_contiguous()
    rows, cols = t.shape
    strides = [stride for stride, size in zip(t.stride(), (rows, cols), strict=True) if size > 1]
    return not t.is_neg() and (not strides or 1 in strides) and 0 not in strides


class _Place:
    """A parameter or state, and where the engine has it: in place, or in a copy."""

    def __init__(self, original: Tensor, like: Tensor | None = None) -> None:
        self.original = original.detach()
        fits = _fits(original) if like is None else original.stride() == like.stride()
        if fits:
            self.used = self.original
        elif like is None:
            self.used = self.original.clone(memory_format=torch.contiguous_format)
        else:
            self.used = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
            self.read()

    def read(self) -> None:
        if self.used is not self.original:
            self.used.copy_(self.original)

    def write_back(self) -> None:
        if self.used is not self.original:
            self.original.copy_(self.used)
        torch.autograd.graph.increment_version(self.original)


class Run:
    """Steps of one network; ``taken`` and ``losses`` are right at any time, interrupted or not.

    Args:
        network: the parameters, and
        find: the same later, as others may change more than their values between two stretches of
            steps.
    """

    def __init__(
        self,
        network: Network,
        find: Callable[[], Network],
        movers: Movers,
        loss: Loss,
        penalty: float,
        stop_at_nonfinite: bool,
    ) -> None:
        self._find, self.movers, self.loss = find, movers, loss
        self._loss_options = {**loss.options, "penalty": penalty}
        self._stop_at_nonfinite = stop_at_nonfinite
        self._training: engine.Training | None = None
        self._most = -1
        self._before = 0  # steps taken by engines before this one
        self._losses: list[Reals] = []
        self._kind = network.kind
        self._set_up(network)

    def _set_up(self, network: Network) -> None:
        """Places for parameters and states as they are now; the next steps need a new engine."""
        self.network = network
        self._condition: list[Any] | None = None  # until others have their say
        self._at_set_up = self.taken
        self._before, self._training = self.taken, None
        self._moving: list[_Place] = []
        self._staying: list[_Place] = []
        self._parameters: list[Tensor | None] = []
        self._movers: list[engine.Mover | None] = []
        for p, mover in zip(network, self.movers.movers, strict=True):
            place = None if p is None else _Place(p)
            self._parameters.append(None if place is None else place.used)
            self._movers.append(None)
            if mover is not None and place is not None:
                self._movers[-1] = self._states_of(mover, place.used)
                self._moving.append(place)
            elif place is not None:
                self._staying.append(place)

    def _present_condition(self, network: Network) -> list[Any]:
        """All that may have changed when this has, besides values and rates."""
        parameters = [None if p is None else (id(p), p.data_ptr(), p.stride()) for p in network]
        return [parameters, self.movers.condition(network)]

    def _states_of(self, mover: Mover, parameter: Tensor) -> dict[str, Any]:
        states: list[Tensor | None] = []
        for name in mover.kind.states:
            if name not in mover.states:
                states.append(None)
                continue
            place = _Place(mover.states[name], like=parameter)
            self._moving.append(place)
            states.append(place.used)
        return {"states": states, **mover.options()}

    @property
    def taken(self) -> int:
        return self._before + (0 if self._training is None else self._training.taken)

    def losses(self, refused_too: bool = False) -> Tensor:
        """Of the steps taken so far: float64, one dimension.

        Args:
            refused_too: with the loss of the step that was not taken, since it is no finite number.
        """
        found = self._losses or [np.empty(0)]
        return torch.from_numpy(np.concatenate(found)[: self.taken + refused_too])

    def _engine(self, batch: int) -> engine.Training:
        """An engine for batches of this size."""
        if self._training is None or batch > self._most:
            self._before, self._most, self._training = self.taken, batch, None
            movers: list[engine.Mover | None] = []
            for told, mover in zip(self._movers, self.movers.movers, strict=True):
                steps = 0 if mover is None else mover.steps + self._before - self._at_set_up
                movers.append(None if told is None else {**told, "steps": steps})
            self._training = engine.new_training(
                num_threads(),
                self._parameters,
                batch,
                self.movers.name,
                movers,
                self.loss.name,
                self._loss_options,
            )
        return self._training

    def constant_rates(self, count: int) -> Reals:
        return self.movers.constant_rates(count)

    def take(
        self,
        samples: Samples,
        chunk: Chunk,
        rates: Reals | None,
        told: Told,
    ) -> None:
        losses = np.empty(len(chunk.first))
        self._losses.append(losses)
        training = self._engine(int(chunk.size.max()))
        engine.run_chunk(training, samples, chunk, rates, losses, self._stop_at_nonfinite, told)

    def read(self) -> None:
        """Takes over what others have changed since in parameters, groups and states."""
        if self._condition is not None:
            network = self._find()
            if self._condition != self._present_condition(network):
                if network.kind != self._kind:
                    raise NotImplementedError(
                        f"fit: the network was {self._kind} and has become {network.kind}"
                        " between two steps; begin another fit for it"
                    )
                self.movers.look(network)
                self._set_up(network)
        for place in self._moving + self._staying:
            place.read()

    def write_back(self) -> None:
        """Parameters, states and the optimizer's counts as they are after the steps taken."""
        if self.taken == self._at_set_up:
            return
        with torch.no_grad():
            for place in self._moving:
                place.write_back()
        self.movers.write_back(self.taken - self._at_set_up)

    def note(self) -> None:
        """What others find after the steps taken, so that their changes are seen."""
        self._condition = self._present_condition(self.network)
