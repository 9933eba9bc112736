"""What differs between the supported versions of scikit-learn and of NumPy."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from sklearn import neural_network as neural_network

# These have no public home: the base class, its tables of functions and its optimizers.
from sklearn.neural_network._base import ACTIVATIONS as ACTIVATIONS
from sklearn.neural_network._base import DERIVATIVES, LOSS_FUNCTIONS
from sklearn.neural_network._multilayer_perceptron import (
    BaseMultilayerPerceptron as BaseMultilayerPerceptron,
)
from sklearn.neural_network._stochastic_optimizers import (
    AdamOptimizer as AdamOptimizer,
)
from sklearn.neural_network._stochastic_optimizers import (
    SGDOptimizer as SGDOptimizer,
)

# What the kernels do in its place, or what is called between the epochs and may change anything:
# as it was when this was imported.
_METHODS = {
    BaseMultilayerPerceptron: (
        "_forward_pass",
        "_compute_loss_grad",
        "_backprop",
        "_update_no_improvement_count",
    ),
    AdamOptimizer: ("_get_updates", "update_params", "iteration_ends"),
    SGDOptimizer: ("_get_updates", "update_params", "iteration_ends"),
}
_AS_IMPORTED = {
    cls: {name: getattr(cls, name) for name in names} for cls, names in _METHODS.items()
}
_TABLES = (ACTIVATIONS, DERIVATIVES, LOSS_FUNCTIONS)
_TABLES_AS_IMPORTED = tuple(map(dict, _TABLES))


def why_not_scikit_learns(thing: Any, cls: type) -> str | None:
    """What of an estimator's or optimizer's code somebody has replaced, or ``None``."""
    for name, method in _AS_IMPORTED[cls].items():
        if name in vars(thing) or getattr(type(thing), name) is not method:
            return f"{name} is not scikit-learn's"
    if _TABLES != _TABLES_AS_IMPORTED:
        return "a function of scikit-learn's tables is replaced"
    return None


def are_epochs_watched(estimator: Any) -> bool:
    """Whether somebody else's code is called when an attribute changes."""
    kind: Any = type(estimator)
    return kind.__setattr__ is not object.__setattr__


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
