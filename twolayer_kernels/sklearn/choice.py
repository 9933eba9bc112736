"""Which engine trains and predicts, ours or scikit-learn's own code, and why."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import joblib  # type: ignore[import-untyped]
import numpy as np

from .. import _cpu
from .versions import (
    AdamOptimizer,
    BaseMultilayerPerceptron,
    SGDOptimizer,
    why_not_scikit_learns,
)

FUSED, OWN = "fused", "scikit-learn"

# The compiled losses, by loss and output activation.
LOSSES = {
    ("log_loss", "softmax"): "sklearn_log_loss",
    ("log_loss", "logistic"): "sklearn_binary_log_loss",
    ("squared_error", "identity"): "sklearn_squared_error",
}


class Engine(NamedTuple):
    """What ran: ``name`` is "fused" or "scikit-learn"."""

    name: str
    reason: str


def against_parameters(estimator: Any) -> str | None:
    """Why the estimator as it is set up is no case for the kernels; None where it is one."""
    layers = np.size(estimator.hidden_layer_sizes)
    if layers != 1:
        return f"{layers} hidden layers: one is fused"
    if estimator.activation != "relu":
        return f"activation={estimator.activation!r}: 'relu' is fused"
    if estimator.solver not in ("adam", "sgd"):
        return f"solver={estimator.solver!r}: 'adam' and 'sgd' are fused"
    if estimator.loss not in {loss for loss, _ in LOSSES}:
        return f"loss={estimator.loss!r} is not fused"
    return why_not_scikit_learns(estimator, BaseMultilayerPerceptron)


def plain(array: Any, dtype: Any) -> bool:
    """Can the kernels change it where it lies?"""
    return (
        type(array) is np.ndarray
        and array.dtype == dtype
        and array.flags.forc
        and array.flags.behaved
    )


def _survives(values: Any, dtype: Any) -> bool:
    """Is nothing of it lost to overflow or underflow?"""
    narrow = values.astype(dtype)
    return bool(np.isfinite(narrow).all() and ((narrow == 0) == (values == 0)).all())


# Of targets that are rounded: how large they may be, and how much of their spread may be lost.
_LARGEST, _LOST = 1e6, 1e-5


def _is_kept(y: Any, dtype: Any) -> bool:
    """Is its rounding nothing beside how far its values are apart, and its square far from any end?

    scikit-learn subtracts in the wider dtype.
    """
    lost = np.abs(y - y.astype(dtype)).max(initial=0.0)
    return bool(np.abs(y).max(initial=0.0) <= _LARGEST and lost <= _LOST * np.std(y))


def against_arrays(estimator: Any, X: Any, y: Any, weight: Any) -> str | None:
    """The same of the data, the parameters and the optimizer of a fit that has begun."""
    if not isinstance(X, np.ndarray):
        return "sparse input"
    parameters = [*estimator.coefs_, *estimator.intercepts_]
    if len(parameters) != 4:
        return f"{len(estimator.coefs_) - 1} hidden layers: one is fused"
    dtype = parameters[0].dtype
    if not all(plain(parameter, dtype) for parameter in parameters):
        return "coefs_ and intercepts_ are not plain arrays of one dtype"
    if np.result_type(X, dtype) != dtype:
        return f"coefs_ are {dtype} and the input is {X.dtype}"
    hidden, outputs = parameters[0].shape[-1], y.shape[1]
    shapes = [(X.shape[1], hidden), (hidden, outputs), (hidden,), (outputs,)]
    if [parameter.shape for parameter in parameters] != shapes:
        return "coefs_ and intercepts_ do not fit the data"
    if (estimator.loss, estimator.out_activation_) not in LOSSES:
        return f"loss={estimator.loss!r} of {estimator.out_activation_!r} outputs"
    if any(part is not None and not _survives(part, dtype) for part in (y, weight)):
        return f"y or sample_weight are beyond {dtype}"
    if np.result_type(y, dtype) != dtype and not _is_kept(y, dtype):
        return f"y is {y.dtype} and loses too much as {dtype}"
    optimizer: Any = getattr(estimator, "_optimizer", None)
    if type(optimizer) is AdamOptimizer:
        states = [*optimizer.ms, *optimizer.vs]
    elif type(optimizer) is SGDOptimizer:
        states = [*optimizer.velocities]
    else:
        return f"the optimizer is a {type(optimizer).__name__}"
    if [state.shape for state in states] != shapes * (len(states) // 4):
        return "the optimizer was begun on other weights"
    return why_not_scikit_learns(optimizer, type(optimizer))


def summary(estimator: Any) -> str:
    return f"one hidden layer of ReLUs, solver={estimator.solver!r}"


def engine_for(estimator: Any, X: Any) -> Engine:
    """What ran, for a fitted estimator, else what would run."""
    if not isinstance(X, np.ndarray) and hasattr(X, "tocsr"):
        return Engine(OWN, "sparse input")
    fitted: Engine | None = getattr(estimator, "engine_", None)
    if fitted is not None:
        return fitted
    against = against_parameters(estimator)
    return Engine(OWN, against) if against else Engine(FUSED, summary(estimator))


def threads() -> int:
    """As many as OpenMP may use here: joblib's processes and threadpoolctl limit these.

    A thread of joblib's works alone: its siblings have the other processors.
    """
    if threading.current_thread() is not threading.main_thread():
        backend, _ = joblib.parallel.get_active_backend()
        if backend.nesting_level:
            return 1
    return _cpu.default_threads()
