"""scikit-learn's ``MLPClassifier`` and ``MLPRegressor`` on the fused kernels, without torch."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

try:
    import sklearn  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "sklearn":  # something that scikit-learn needs
        raise
    raise ModuleNotFoundError(
        "twolayer_kernels.sklearn needs scikit-learn: pip install 'twolayer_kernels[sklearn]'",
        name=error.name,
    ) from error

import numpy as np
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import (
    compute_class_weight,
    compute_sample_weight,
)

from .choice import Engine as Engine
from .choice import engine_for as engine_for
from .training import FusedTraining
from .versions import neural_network

__all__ = ["MLPClassifier", "MLPRegressor"]


def _with_class_weight(init: Any) -> inspect.Signature:
    """The constructor's signature, as the installed scikit-learn has it, with one more name."""
    signature = inspect.signature(init)
    added = inspect.Parameter("class_weight", inspect.Parameter.KEYWORD_ONLY, default=None)
    return signature.replace(parameters=[*signature.parameters.values(), added])


class MLPClassifier(FusedTraining, neural_network.MLPClassifier):  # type: ignore[misc]
    """scikit-learn's ``MLPClassifier``; one hidden layer of ReLUs is trained by fused kernels.

    Parameters, attributes, methods, messages and random numbers are those of
    :class:`sklearn.neural_network.MLPClassifier`, of which this is a subclass. With one hidden
    layer, ``activation="relu"`` and ``solver="adam"`` or ``"sgd"`` (the defaults) an epoch is one
    call of the kernels, and so is a prediction; every other configuration, and sparse input, runs
    scikit-learn's own code.

    Args:
        class_weight: as scikit-learn's other classifiers take it: ``None``; a dict of each class's
            weight; ``"balanced"``, for ``samples / (classes * samples of the class)``; with several
            labels also a list of dicts. Samples count by their class's weight times their
            ``sample_weight``. ``partial_fit`` takes no ``"balanced"``.

    Attributes:
        engine_: ``Engine(name, reason)`` of the last fit; the name is "fused" or "scikit-learn".

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from twolayer_kernels.sklearn import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = MLPClassifier(max_iter=500, random_state=0).fit(X, y)
        >>> model.score(X, y) > 0.95, model.engine_.name
        (True, 'fused')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **neural_network.MLPClassifier._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    class_weight: Any = None  # also of a state that scikit-learn's own class has pickled

    def __init__(self, *args: Any, class_weight: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.class_weight = class_weight

    # What clone, get_params and help go by.
    __init__.__signature__ = _with_class_weight(  # type: ignore[attr-defined]
        neural_network.MLPClassifier.__init__
    )

    def _fit(self, X: Any, y: Any, *args: Any, incremental: bool = False, **kwargs: Any) -> Any:
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not supported for partial_fit: it needs all of y."
                " Give a dict, for instance of compute_class_weight('balanced', classes=..., y=...)"
            )
        return super()._fit(X, y, *args, incremental=incremental, **kwargs)

    def _all_weights(self, y: Any, sample_weight: Any) -> Any:
        if self.class_weight is None:
            return sample_weight
        if self._label_binarizer.y_type_.startswith("multilabel"):
            weight = compute_sample_weight(self.class_weight, y.astype(int))
        else:
            index = y.argmax(axis=1) if y.shape[1] > 1 else y[:, 0].astype(int)
            # All classes, for partial_fit's y may lack some.
            weight = compute_class_weight(
                self.class_weight, classes=self.classes_, y=self.classes_[index]
            )[index]
        return weight if sample_weight is None else weight * np.asarray(sample_weight)


class MLPRegressor(FusedTraining, neural_network.MLPRegressor):  # type: ignore[misc]
    """scikit-learn's ``MLPRegressor``; one hidden layer of ReLUs is trained by fused kernels.

    Parameters, attributes, methods, messages and random numbers are those of
    :class:`sklearn.neural_network.MLPRegressor`, of which this is a subclass. With the squared
    error, one hidden layer, ``activation="relu"`` and ``solver="adam"`` or ``"sgd"`` (the
    defaults) an epoch is one call of the kernels, and so is a prediction; every other
    configuration, and sparse input, runs scikit-learn's own code.

    Attributes:
        engine_: ``Engine(name, reason)`` of the last fit; the name is "fused" or "scikit-learn".

    Example:
        >>> from sklearn.datasets import make_regression
        >>> from twolayer_kernels.sklearn import MLPRegressor
        >>> X, y = make_regression(n_samples=200, n_features=20, random_state=1)
        >>> model = MLPRegressor(max_iter=2000, tol=0.1, random_state=1).fit(X, y)
        >>> model.score(X, y) > 0.95, model.engine_.name
        (True, 'fused')
    """
