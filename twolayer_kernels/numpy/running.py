"""One run of steps on arrays: the engine, the optimizer's state, and what is copied back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import Chunk, Mover, Reals, Samples, Told, Training, new_training, run_chunk
from .network import Array
from .threads import get_num_threads

State = dict[str, Array]

_NAMES = ("w1", "w2", "b1", "b2")
_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


def _states(optimizer: str, options: dict[str, Any]) -> tuple[str | None, ...]:
    """The names of an optimizer's arrays for a parameter; ``None`` where none is needed."""
    if optimizer == "sgd":
        return ("momentum_buffer" if options["momentum"] else None,)
    if optimizer == "rmsprop":
        return (
            "square_avg",
            "momentum_buffer" if options["momentum"] else None,
            "grad_avg" if options["centered"] else None,
        )
    return _MOMENTS if options["amsgrad"] else (*_MOMENTS[:2], None)


def _check_state(
    optimizer: str, options: dict[str, Any], parameters: tuple[Array | None, ...], state: State
) -> set[str]:
    """The names of what the state holds, if it is one of this optimizer's for these parameters."""
    if not isinstance(state, dict):
        raise TypeError(f"fit: state must be a dict, got {type(state).__name__}")
    for key, kept in state.items():
        if not isinstance(kept, np.ndarray) and key != "step":
            raise TypeError(
                f"fit: state[{key!r}] must be a numpy.ndarray, got {type(kept).__name__}"
            )
    step = np.asarray(state.get("step", 0))
    if step.ndim or step.dtype.kind not in "iuf" or not 0 <= step < 2**62 or step % 1:
        raise ValueError(f"fit: state['step'] must count steps, got {state['step']!r}")
    possible = _states(optimizer, {**options, "momentum": 1.0, "centered": True, "amsgrad": True})
    likes = {
        f"{name}.{key}": array
        for name, array in zip(_NAMES, parameters, strict=True)
        if array is not None
        for key in possible
    }
    for key, kept in state.items():
        if key == "step":
            continue
        if key not in likes:
            raise ValueError(f"fit: state holds {key}, which is nothing of {optimizer}'s here")
        like = likes[key]
        if kept.shape != like.shape or kept.dtype != like.dtype:
            raise ValueError(
                f"fit: state[{key!r}] must have shape {like.shape} and dtype {like.dtype}, got"
                f" {kept.shape} and {kept.dtype}"
            )
    return set(state)


class _Place:
    """A parameter, and where the engine moves it: in place, or in a copy that is adjacent."""

    def __init__(self, name: str, array: Array) -> None:
        if not array.flags.writeable:
            raise ValueError(f"fit: {name} is trained in place and must be writeable")
        self.original = array
        fits = array.flags.aligned and array.flags.forc  # states are laid out likewise
        self.used = array if fits else array.copy()

    def read(self) -> None:
        if self.used is not self.original:
            self.used[...] = self.original

    def write_back(self) -> None:
        if self.used is not self.original:
            self.original[...] = self.used


class Run:
    """Steps of one network on arrays."""

    def __init__(
        self,
        parameters: tuple[Array | None, ...],
        batch: int,
        optimizer: str,
        options: dict[str, Any],
        loss: tuple[str, dict[str, Any]],
        state: State,
        stop_at_nonfinite: bool,
    ) -> None:
        self._options, self._state, self._stop = options, state, stop_at_nonfinite
        self._new: State = {}  # what becomes the state's with the first step
        self._places: list[_Place] = []
        movers: list[Mover | None] = []
        used: list[Array | None] = []
        known = _check_state(optimizer, options, parameters, state)
        self._before = int(state.get("step", 0))
        told = {key: value for key, value in options.items() if key != "betas"}
        if "betas" in options:
            told["beta1"], told["beta2"] = options["betas"]
        for name, array in zip(_NAMES, parameters, strict=True):
            if array is None:
                movers.append(None)
                used.append(None)
                continue
            place = _Place(name, array)
            self._places.append(place)
            used.append(place.used)
            states = [
                None if key is None else self._state_of(f"{name}.{key}", place.used)
                for key in _states(optimizer, options)
            ]
            # A momentum that there was none of begins with the gradient, whole.
            begins = optimizer == "sgd" and f"{name}.momentum_buffer" not in known
            movers.append({**told, "states": states, "steps": 0 if begins else self._before})
        name, loss_options = loss
        self._training: Training = new_training(
            get_num_threads(), used, batch, optimizer, movers, name, loss_options
        )
        self._losses: list[Reals] = []

    def _state_of(self, key: str, like: Array) -> Array:
        """The state's array, made with zeros where it is not there yet."""
        kept = self._state.get(key)
        if (
            kept is not None
            and kept.strides == like.strides
            and kept.flags.aligned
            and kept.flags.writeable
        ):
            return kept
        used = self._new[key] = np.zeros_like(like)
        if kept is not None:
            used[...] = kept
        return used

    @property
    def taken(self) -> int:
        return self._training.taken

    def losses(self, refused_too: bool = False) -> Reals:
        return np.concatenate(self._losses or [np.empty(0)])[: self.taken + refused_too]

    def constant_rates(self, count: int) -> Reals:
        options = self._options
        momentum = options["betas"][0] if "betas" in options else options["momentum"]
        now = np.array([options["lr"], momentum], np.float64)
        return np.tile(now, (count, len(_NAMES), 1))

    def read(self) -> None:
        for place in self._places:
            place.read()

    def take(
        self,
        samples: Samples,
        chunk: Chunk,
        rates: Reals | None,
        told: Told,
    ) -> None:
        losses = np.empty(len(chunk.first))
        self._losses.append(losses)
        run_chunk(self._training, samples, chunk, rates, losses, self._stop, told)

    def note(self) -> None: ...

    def write_back(self) -> None:
        if self.taken == 0:
            return
        for place in self._places:
            place.write_back()
        self._state.update(self._new)
        self._new = {}
        self._state["step"] = np.array(self._before + self.taken)
