"""What scikit-learn's perceptrons do otherwise here: the loop of epochs, and prediction.

The loop is scikit-learn's ``BaseMultilayerPerceptron._fit_stochastic`` with one call for an epoch,
or for several between which nobody has a say, in the place of its batches; what it decides and says
stays scikit-learn's: the split, the optimizer's schedule, the count of epochs without improvement,
the messages.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from .. import _cpu
from .choice import FUSED, OWN, Engine, against_arrays, against_parameters, summary, threads
from .epochs import Epochs, Orders
from .versions import (
    ACTIVATIONS,
    TAKES_SAMPLE_WEIGHT,
    AdamOptimizer,
    BaseMultilayerPerceptron,
    SGDOptimizer,
    are_epochs_watched,
    validate_data,
)

# Up to here softmax is faster by columns.
_FEW_OUTPUTS = 32


def _new_optimizer(estimator: Any) -> Any:
    parameters = estimator.coefs_ + estimator.intercepts_
    if estimator.solver == "adam":
        return AdamOptimizer(
            parameters,
            estimator.learning_rate_init,
            estimator.beta_1,
            estimator.beta_2,
            estimator.epsilon,
        )
    return SGDOptimizer(
        parameters,
        estimator.learning_rate_init,
        estimator.learning_rate,
        estimator.momentum,
        estimator.nesterovs_momentum,
        estimator.power_t,
    )


def _forward(X: Any, coefs: list[Any], intercepts: list[Any]) -> Any:
    """The outputs before their activation; None where these are no arrays that fit together."""
    arrays = [X, *coefs, *intercepts]
    if len(arrays) != 5 or not all(isinstance(array, np.ndarray) for array in arrays):
        return None
    dtype = np.result_type(*arrays)
    if dtype.char not in "fd":
        return None
    x, w1, w2, b1, b2 = (
        array if array.dtype == dtype and array.flags.forc and array.flags.aligned
        else np.array(array, dtype, order="C")
        for array in arrays
    )  # fmt: skip
    y = np.empty((x.shape[0], *b2.shape[-1:]), dtype)
    try:
        _cpu.two_layer_forward(threads(), x, w1.T, w2.T, b1, b2, None, y)
    except ValueError:  # scikit-learn's own code says better what is wrong
        return None
    return y


def _activate(y: Any, activation: str) -> None:
    """scikit-learn's output activation, in place.

    Its softmax reduces along the rows. For few outputs that is slow: 10000 x 5 in float32 takes
    777 us, and 247 by columns.
    """
    if activation != "softmax" or y.shape[1] > _FEW_OUTPUTS:
        ACTIVATIONS[activation](y)
        return
    columns = np.ascontiguousarray(y.T)
    columns -= columns.max(axis=0)
    np.exp(columns, out=columns)
    columns /= columns.sum(axis=0)
    y[:] = columns.T


class FusedTraining(BaseMultilayerPerceptron):  # type: ignore[misc]
    """Comes before one of scikit-learn's two classes among a class's bases."""

    engine_: Engine
    _no_improvement_count: int
    best_loss_: Any
    n_iter_: int
    t_: int

    def _all_weights(self, y: Any, sample_weight: Any) -> Any:
        """Of the samples: (samples,) or None."""
        return sample_weight

    def _fit_by_own_code(
        self, against: str, fit: Any, X: Any, y: Any, weight: Any, rest: Any
    ) -> None:
        self.engine_ = Engine(OWN, against)
        if TAKES_SAMPLE_WEIGHT:
            rest = (weight, *rest)
        elif weight is not None:
            raise NotImplementedError(f"class_weight needs scikit-learn 1.7 or newer for {against}")
        fit(X, y, *rest)

    def _fit_lbfgs(self, X: Any, y: Any, *rest: Any) -> None:
        sample_weight, rest = (rest[0], rest[1:]) if TAKES_SAMPLE_WEIGHT else (None, rest)
        weight = self._all_weights(y, sample_weight)
        against = against_parameters(self)
        assert against is not None
        self._fit_by_own_code(against, super()._fit_lbfgs, X, y, weight, rest)

    def _fit_stochastic(self, X: Any, y: Any, *rest: Any) -> None:
        sample_weight, rest = (rest[0], rest[1:]) if TAKES_SAMPLE_WEIGHT else (None, rest)
        incremental = rest[-1]
        weight = self._all_weights(y, sample_weight)
        against = against_parameters(self)
        if against is None:
            if not incremental or not hasattr(self, "_optimizer"):
                self._optimizer = _new_optimizer(self)
            against = against_arrays(self, X, y, weight)
        if against is not None:
            self._fit_by_own_code(against, super()._fit_stochastic, X, y, weight, rest)
            return
        self.engine_ = Engine(FUSED, summary(self))

        early_stopping = self.early_stopping
        if early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        X_val = y_val = weight_val = None
        if early_stopping:
            arrays = [X, y] if weight is None else [X, y, weight]
            parts = train_test_split(
                *arrays,
                random_state=self._random_state,
                test_size=self.validation_fraction,
                stratify=y if is_classifier(self) and self.n_outputs_ == 1 else None,
            )
            X, X_val, y, y_val = parts[:4]
            if weight is not None:
                weight, weight_val = parts[4:]
            if TAKES_SAMPLE_WEIGHT and X_val.shape[0] < 2:
                raise ValueError(
                    "The validation set is too small. Increase 'validation_fraction' "
                    "or the size of your dataset."
                )
            if is_classifier(self):
                y_val = self._label_binarizer.inverse_transform(y_val)
        held_out = (X_val, y_val, weight_val) if TAKES_SAMPLE_WEIGHT else (X_val, y_val)

        n_samples = X.shape[0]
        batch_size = min(200, n_samples)
        if self.batch_size != "auto":
            if self.batch_size > n_samples:
                warnings.warn(
                    "Got `batch_size` less than 1 or larger than "
                    "sample size. It is going to be clipped",
                    stacklevel=2,
                )
            batch_size = np.clip(self.batch_size, 1, n_samples)

        orders = Orders(self._random_state, n_samples, self.shuffle)
        most = 1 if incremental else self.max_iter
        epochs = Epochs(self, X, y, weight, batch_size, most, orders)
        watched = early_stopping or are_epochs_watched(self)
        samples_before, epochs_before = self.t_, len(self.loss_curve_)
        try:
            self.n_iter_ = 0
            for loss in self._epochs(epochs, incremental or watched):
                self.loss_ = loss
                self.n_iter_ += 1
                self.t_ += n_samples
                self.loss_curve_.append(self.loss_)
                if self.verbose:
                    print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")

                if watched:
                    epochs.hand_back()
                self._update_no_improvement_count(early_stopping, *held_out)
                self._optimizer.iteration_ends(self.t_)

                if self._no_improvement_count > self.n_iter_no_change:
                    what = (
                        f"Validation score did not improve more than tol={self.tol:f}"
                        if early_stopping
                        else f"Training loss did not improve more than tol={self.tol:f}"
                    )
                    message = f"{what} for {self.n_iter_no_change} consecutive epochs."
                    if self._optimizer.trigger_stopping(message, self.verbose):
                        break
                    self._no_improvement_count = 0

                if incremental:
                    break

                if self.n_iter_ == self.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) "
                        "reached and the optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=2,
                    )
        except KeyboardInterrupt:
            losses = epochs.settle()
            if self.n_iter_ != len(losses) or len(self.loss_curve_) != epochs_before + len(losses):
                self._note_epochs(losses, epochs_before, samples_before + len(losses) * n_samples)
            warnings.warn("Training interrupted by user.", stacklevel=2)
        finally:
            epochs.hand_back()

        if early_stopping:
            self.coefs_ = self._best_coefs
            self.intercepts_ = self._best_intercepts

    def _note_epochs(self, losses: list[Any], before: int, samples: int) -> None:
        """These epochs have been: what the loop would have noted of them."""
        self.n_iter_, self.t_ = len(losses), samples
        self.loss_curve_[before:] = losses
        if losses:
            self.loss_ = losses[-1]
        if self.best_loss_ is not None:
            self.best_loss_ = min([self.best_loss_, *losses])

    def _epochs(self, epochs: Epochs, one_by_one: bool) -> Iterator[Any]:
        """Trains, and gives the loss of one epoch after the other.

        Several run in one call where training cannot end before the last of them: it ends after
        more than ``n_iter_no_change`` epochs in a row without improvement. (Without a best loss,
        left by ``early_stopping``, the first epoch ends it with an error.)
        """
        one_by_one = one_by_one or self.verbose or self.best_loss_ is None
        while self.n_iter_ < self.max_iter:
            until_the_end = self.n_iter_no_change - self._no_improvement_count + 1
            left = self.max_iter - self.n_iter_
            several = int(max(1, min(epochs.most_at_once, until_the_end, left)))
            yield from epochs.run(1 if one_by_one else several)

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Any:
        engine = getattr(self, "engine_", None)
        if engine is not None and engine.name == FUSED and self.activation == "relu":
            if check_input:
                X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
                check_input = False
            y = _forward(X, self.coefs_, self.intercepts_)
            if y is not None:
                _activate(y, self.out_activation_)
                return y
        return super()._forward_pass_fast(X, check_input=check_input)
