"""What differs between the supported versions of scikit-learn and of NumPy."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from sklearn import neural_network as neural_network

# These have no public home: the base class, its tables of functions and its optimizers.
from sklearn.neural_network._base import ACTIVATIONS as ACTIVATIONS
from sklearn.neural_network._multilayer_perceptron import (
    BaseMultilayerPerceptron as BaseMultilayerPerceptron,
)
from sklearn.neural_network._stochastic_optimizers import (
    AdamOptimizer as AdamOptimizer,
)
from sklearn.neural_network._stochastic_optimizers import (
    SGDOptimizer as SGDOptimizer,
)

# What scikit-learn calls after each epoch, as it was when this was imported.
_ITERATION_ENDS = {cls: cls.iteration_ends for cls in (AdamOptimizer, SGDOptimizer)}
_COUNTS = "_update_no_improvement_count"
_COUNT = getattr(BaseMultilayerPerceptron, _COUNTS)


def is_iteration_end_replaced(optimizer: Any) -> bool:
    """Whether somebody else's code ends the optimizer's epochs."""
    own = "iteration_ends" in vars(optimizer)
    return own or type(optimizer).iteration_ends is not _ITERATION_ENDS.get(type(optimizer))


def are_epochs_watched(estimator: Any) -> bool:
    """Whether somebody else's code is called after each epoch, or when an attribute changes."""
    kind: Any = type(estimator)
    replaced = _COUNTS in vars(estimator) or getattr(kind, _COUNTS) is not _COUNT
    return replaced or kind.__setattr__ is not object.__setattr__


# Since 1.7: fit, the losses and the validation score take sample weights.
TAKES_SAMPLE_WEIGHT = (
    "sample_weight" in inspect.signature(BaseMultilayerPerceptron._fit_stochastic).parameters
)
# NumPy 2's scalars lift arrays, so scikit-learn's update of float32 weights by Adam, whose learning
# rate is such a scalar, is computed in float64 there.
ADAM_IS_WIDE = (np.float64(1) * np.zeros(1, np.float32)).dtype == np.float64

try:
    from sklearn.utils.validation import (
        validate_data as validate_data,
    )
except ImportError:  # before 1.6

    def validate_data(estimator: Any, X: Any, **options: Any) -> Any:
        """scikit-learn's own, which was a method."""
        return estimator._validate_data(X, **options)
