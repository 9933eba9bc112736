"""Epochs of scikit-learn's stochastic training, each as one call of the compiled loop."""

from __future__ import annotations

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


# Passes of a sample from which copying a weight in and out costs less than its order.
_PASSES_WORTH_COPIES = 2000


class Epochs:
    """A network, its optimizer and its data, ready to be trained epoch by epoch.

    Parameters and the optimizer's arrays are changed in place, at the latest by :meth:`hand_back`;
    the optimizer object stays as scikit-learn would leave it.

    Args:
        estimator: with ``coefs_``, ``intercepts_`` and ``_optimizer`` set up.
        X: ``(samples, features)``.
        y: as scikit-learn's ``_fit_stochastic`` gets it: ``(samples, outputs)``.
        weight: ``(samples,)`` or ``None``.
        batch_size: samples of a step.
        most: epochs that there may be.
    """

    def __init__(
        self, estimator: Any, X: Any, y: Any, weight: Any, batch_size: int, most: int
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
        self._losses = np.empty(len(self._first))
        self._optimizer = estimator._optimizer
        self._rate: float | None = None
        self._rates: NDArray[Any] | None = None
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

    def _current_rates(self) -> NDArray[Any] | None:
        """Of each step and parameter; None for Adam, whose rate does not change."""
        optimizer = self._optimizer
        if isinstance(optimizer, AdamOptimizer):
            return None
        if self._rates is None or self._rate != optimizer.learning_rate:
            self._rate = optimizer.learning_rate
            self._rates = np.empty((len(self._first), 4, 2))
            self._rates[:] = self._rate, optimizer.momentum
        return self._rates

    def _took(self, steps: int) -> None:
        """What scikit-learn's optimizer notes of its steps."""
        optimizer = self._optimizer
        if steps and isinstance(optimizer, AdamOptimizer):
            optimizer.t += steps
            correction = np.sqrt(1 - optimizer.beta_2**optimizer.t)
            optimizer.learning_rate = (
                optimizer.learning_rate_init * correction / (1 - optimizer.beta_1**optimizer.t)
            )

    def _steps_with_weight(self, order: NDArray[Any] | None) -> int:
        """How many steps there are before one whose weights are nothing in sum."""
        if not self._may_vanish:
            return len(self._first)
        weight = self._samples.weight
        weight = weight if order is None else weight[order]
        nothing = np.add.reduceat(weight, self._first) == 0
        return int(nothing.argmax()) if nothing.any() else len(nothing)

    def run(self, order: NDArray[Any] | None) -> Any:
        """Trains on all samples once, in this order, and returns their mean loss.

        Raises:
            ZeroDivisionError: NumPy's, where the weights of a batch are nothing in sum.
        """
        count, before = self._steps_with_weight(order), self._training.taken
        rates = self._current_rates()
        chunk = Chunk(0, order, self._first[:count], self._size[:count])
        try:
            run_chunk(
                self._training,
                self._samples,
                chunk,
                None if rates is None else rates[:count],
                self._losses,
                stop_at_nonfinite=False,
            )
        finally:  # Ctrl-C comes through between two steps
            self._took(self._training.taken - before)
        if count < len(self._first):
            np.average([0.0], weights=[0.0])
        return self._losses @ self._share
