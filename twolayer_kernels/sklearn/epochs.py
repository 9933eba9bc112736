"""Epochs of scikit-learn's stochastic training, as calls of the compiled loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Chunk, Samples, new_training, run_chunk
from .choice import LOSSES, plain, threads
from .versions import ADAM_IS_WIDE, AdamOptimizer


def _as_states(states: list[Any], parameters: list[Any]) -> list[Any]:
    """The optimizer's arrays where they fit their parameters, else copies that do."""
    fitting = []
    for state, parameter in zip(states, parameters, strict=True):
        if not (plain(state, parameter.dtype) and state.strides == parameter.strides):
            copied = np.empty_like(parameter)
            np.copyto(copied, state, casting="same_kind")
            state = copied
        fitting.append(state)
    return fitting


# Samples of the epochs that one call may take.
_SAMPLES_AT_ONCE = 1 << 17


class Orders:
    """The samples' order in each epoch, as scikit-learn draws it: the last one shuffled again.

    ``sklearn.utils.shuffle`` shuffles their places and looks the order up there, which comes to the
    same as shuffling the order itself.
    """

    def __init__(self, random_state: np.random.RandomState, samples: int, shuffle: bool) -> None:
        self._random_state, self._shuffle = random_state, shuffle
        self._order = np.arange(samples)
        self._drawn = 0  # epochs, with those of the last draw
        # Before the last draw, if it can be undone: generator, order and epochs.
        self._before: tuple[Any, NDArray[Any], int] | None = None

    def draw(self, epochs: int) -> NDArray[Any] | None:
        """Of so many epochs, ``(epochs, samples)``; None: the samples stay in turn."""
        if not self._shuffle:
            return None
        self._before = None
        if epochs > 1:
            state = self._random_state.get_state(legacy=False)
            self._before = (state, self._order.copy(), self._drawn)
        orders = np.empty((epochs, len(self._order)), self._order.dtype)
        for order in orders:
            self._random_state.shuffle(self._order)
            order[:] = self._order
        self._drawn += epochs
        return orders

    def give_back(self, begun: int) -> None:
        """Only so many epochs have begun, in all."""
        if self._before is not None:
            state, self._order, self._drawn = self._before
            self._random_state.set_state(state)
            if begun > self._drawn:
                self.draw(begun - self._drawn)


# Passes of a sample from which copying a weight in and out costs less than its order.
_PASSES_WORTH_COPIES = 2000


class Epochs:
    """A network, its optimizer and its data, ready to be trained, some epochs at a time.

    Parameters and the optimizer's arrays are changed in place, at the latest by :meth:`hand_back`;
    the optimizer object stays as scikit-learn would leave it.

    Args:
        estimator: with ``coefs_``, ``intercepts_`` and ``_optimizer`` set up.
        X: ``(samples, features)``.
        y: as scikit-learn's ``_fit_stochastic`` gets it: ``(samples, outputs)``.
        weight: ``(samples,)`` or ``None``.
        batch_size: samples of a step.
        most: epochs that there may be.
        orders: of the samples.
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        weight: Any,
        batch_size: int,
        most: int,
        orders: Orders,
    ) -> None:
        (w1, w2), (b1, b2) = estimator.coefs_, estimator.intercepts_
        dtype = w1.dtype
        softmax = estimator.out_activation_ == "softmax"
        self._samples = Samples(
            np.ascontiguousarray(X, dtype),
            None if softmax else np.ascontiguousarray(y, dtype),
            y.argmax(axis=1) if softmax else None,
            None if weight is None else np.ascontiguousarray(weight, dtype),
        )
        self._may_vanish = weight is not None and not weight.min() > 0
        samples = X.shape[0]
        self._first = np.arange(0, samples, batch_size)
        self._size = np.minimum(batch_size, samples - self._first)
        self._share = self._size / samples
        self._orders = orders
        self._losses: list[NDArray[Any]] = []  # of the steps of each call
        self._optimizer = estimator._optimizer
        self._steps_before = getattr(self._optimizer, "t", 0)
        self._copies: list[tuple[Any, Any]] = []
        self._by_output = samples * most >= _PASSES_WORTH_COPIES
        self._training = new_training(
            threads(),
            tuple(self._in_kernels_order(parameter).T for parameter in (w1, w2, b1, b2)),
            int(batch_size),
            "sklearn_adam" if isinstance(self._optimizer, AdamOptimizer) else "sklearn_sgd",
            self._movers([w1, w2, b1, b2]),
            LOSSES[estimator.loss, estimator.out_activation_],
            {"penalty": float(estimator.alpha), "penalty_is_shared": True},
        )

    def _movers(self, parameters: list[Any]) -> list[dict[str, Any] | None]:
        optimizer = self._optimizer
        options: dict[str, Any]
        if isinstance(optimizer, AdamOptimizer):
            optimizer.ms = _as_states(optimizer.ms, parameters)
            optimizer.vs = _as_states(optimizer.vs, parameters)
            states: list[tuple[Any, ...]] = list(zip(optimizer.ms, optimizer.vs, strict=True))
            options = {
                "lr": float(optimizer.learning_rate_init),
                "beta1": float(optimizer.beta_1),
                "beta2": float(optimizer.beta_2),
                "eps": float(optimizer.epsilon),
                "wide": ADAM_IS_WIDE,
                "steps": optimizer.t,
            }
        else:
            optimizer.velocities = _as_states(optimizer.velocities, parameters)
            states = [(velocity,) for velocity in optimizer.velocities]
            options = {
                "momentum": float(optimizer.momentum),
                "nesterov": bool(optimizer.nesterov),
            }
        return [
            options | {"states": [self._in_kernels_order(state).T for state in own]}
            for own in states
        ]

    def _in_kernels_order(self, array: Any) -> Any:
        """scikit-learn's ``(inputs, outputs)`` by output, as the kernels train it fastest.

        A copy where it is in another order. An epoch of digits takes 0.47 ms so, else 0.62.
        """
        if array.ndim < 2 or array.flags.f_contiguous or not self._by_output:
            return array
        copy = np.asfortranarray(array)
        self._copies.append((array, copy))
        return copy

    def hand_back(self) -> None:
        """Brings the estimator's own arrays up to date."""
        for theirs, ours in self._copies:
            theirs[...] = ours

    def _current_rates(self, steps: int) -> NDArray[Any] | None:
        """Of each step and parameter; None for Adam, whose rate does not change."""
        optimizer = self._optimizer
        if isinstance(optimizer, AdamOptimizer):
            return None
        rates = np.empty((steps, 4, 2))
        rates[:] = optimizer.learning_rate, optimizer.momentum
        return rates

    def _note_steps(self) -> None:
        """What scikit-learn's optimizer notes of its steps."""
        optimizer = self._optimizer
        if self._training.taken and isinstance(optimizer, AdamOptimizer):
            optimizer.t = self._steps_before + self._training.taken
            correction = np.sqrt(1 - optimizer.beta_2**optimizer.t)
            optimizer.learning_rate = (
                optimizer.learning_rate_init * correction / (1 - optimizer.beta_1**optimizer.t)
            )

    @property
    def most_at_once(self) -> int:
        """How many epochs one call may take if nobody wants to see or decide anything between."""
        optimizer = self._optimizer
        changes = getattr(optimizer, "lr_schedule", "") == "invscaling"
        if self._may_vanish or changes:
            return 1
        return max(1, _SAMPLES_AT_ONCE // len(self._samples.x))

    def _steps_with_weight(self, order: NDArray[Any] | None) -> int:
        """How many steps there are before one whose weights are nothing in sum."""
        weight = self._samples.weight
        weight = weight if order is None else weight[order]
        nothing = np.add.reduceat(weight, self._first) == 0
        return int(nothing.argmax()) if nothing.any() else len(nothing)

    def run(self, epochs: int) -> Iterator[Any]:
        """Trains on all samples so often, and then yields the mean loss of each epoch.

        Args:
            epochs: at most :attr:`most_at_once`.

        Raises:
            ZeroDivisionError: NumPy's, where the weights of a batch are nothing in sum.
        """
        drawn = self._orders.draw(epochs)
        steps = len(self._first)
        first, size = np.tile(self._first, (epochs, 1)), np.tile(self._size, epochs)
        if drawn is not None:
            first += len(self._samples.x) * np.arange(epochs)[:, None]
        count = steps * epochs
        if self._may_vanish:
            count = self._steps_with_weight(None if drawn is None else drawn[0])
        order = None if drawn is None else drawn.ravel()
        chunk = Chunk(0, order, first.ravel()[:count], size[:count])
        rates, losses = self._current_rates(count), np.empty(steps * epochs)
        self._losses.append(losses)
        try:
            run_chunk(self._training, self._samples, chunk, rates, losses, stop_at_nonfinite=False)
        finally:
            self._note_steps()
        if count < steps:
            np.average([0.0], weights=[0.0])
        yield from losses.reshape(epochs, steps) @ self._share

    def settle(self) -> list[Any]:
        """After Ctrl-C, wherever it came: the mean losses of the epochs that are whole.

        Optimizer and orders are left as after the steps that were taken.
        """
        self._note_steps()
        steps = len(self._first)
        whole, more = divmod(self._training.taken, steps)
        self._orders.give_back(whole + (more > 0))
        losses = np.concatenate([np.empty(0), *self._losses])[: whole * steps]
        return list(losses.reshape(whole, steps) @ self._share)
