"""Data and settings on which our perceptrons and scikit-learn's are compared, as data.

The ordinary lane takes each setting on one data set and each data set with one setting;
``TWOLAYER_LONG=1`` takes the whole product, in both dtypes.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn import base, datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

from twolayer_kernels import sklearn as ours
from twolayer_kernels.sklearn.versions import TAKES_SAMPLE_WEIGHT

LONG = os.environ.get("TWOLAYER_LONG") == "1"
EPOCHS = 20
# Of the loss curve, relative, in float64.
BAND = 1e-9

CLASSES = {
    "classifier": (ours.MLPClassifier, neural_network.MLPClassifier),
    "regressor": (ours.MLPRegressor, neural_network.MLPRegressor),
}


def _multilabel():
    return datasets.make_multilabel_classification(300, 20, n_classes=4, random_state=0)


def _text():
    X, y = datasets.load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


# With features, and numbers to be predicted, of variance 1 unless they are named as they are.
DATASETS = {
    "iris": ("classifier", datasets.load_iris),
    "iris_names": ("classifier", _text),
    "wine": ("classifier", datasets.load_wine),
    "digits": ("classifier", datasets.load_digits),
    "breast_cancer": ("classifier", datasets.load_breast_cancer),
    "multilabel": ("classifier", _multilabel),
    "diabetes": ("regressor", datasets.load_diabetes),
    "linnerud": ("regressor", datasets.load_linnerud),
    "raw_wine": ("classifier", datasets.load_wine),
    "raw_digits": ("classifier", datasets.load_digits),
    "raw_diabetes": ("regressor", datasets.load_diabetes),
}
AS_THEY_ARE = {"raw_wine", "raw_digits", "raw_diabetes"}


@cache
def load(name: str, dtype: str) -> tuple[Any, Any]:
    kind, loader = DATASETS[name]
    X, y = loader() if loader in (_multilabel, _text) else loader(return_X_y=True)
    if name not in AS_THEY_ARE:
        X, y = scale(X), scale(y) if kind == "regressor" else y
    return X.astype(dtype), y.astype(dtype) if kind == "regressor" else y


@dataclass(frozen=True)
class Setting:
    """Arguments of the constructor, and how the estimator is trained with them."""

    parameters: dict[str, Any] = field(default_factory=dict)
    fits: int = 1
    partial: bool = False
    weighted: bool = False
    kinds: tuple[str, ...] = ("classifier", "regressor")

    def train(self, estimator: Any, X: Any, y: Any) -> Any:
        weights = {}
        if self.weighted:
            weights["sample_weight"] = np.random.RandomState(5).randint(0, 4, len(X)) * 0.5
        for _ in range(EPOCHS if self.partial else self.fits):
            if self.partial and base.is_classifier(estimator):
                classes = np.arange(y.shape[1]) if y.ndim == 2 else np.unique(y)
                estimator.partial_fit(X, y, classes=classes, **weights)
            elif self.partial:
                estimator.partial_fit(X, y, **weights)
            else:
                estimator.fit(X, y, **weights)
        return estimator


SGD = {"solver": "sgd", "learning_rate_init": 0.01}
SETTINGS = {
    "default": Setting(),
    "wide": Setting({"hidden_layer_sizes": 257}),
    "one_unit": Setting({"hidden_layer_sizes": [1]}),
    "no_penalty": Setting({"alpha": 0.0}),
    "penalty": Setting({"alpha": 1.0}),
    "adam": Setting({"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-4, "learning_rate_init": 0.01}),
    "sgd": Setting(SGD),
    "plain_momentum": Setting(SGD | {"nesterovs_momentum": False}),
    "no_momentum": Setting(SGD | {"momentum": 0}),
    "invscaling": Setting(SGD | {"learning_rate": "invscaling", "power_t": 0.3}),
    "adaptive": Setting(SGD | {"learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 2}),
    "in_order": Setting({"shuffle": False}),
    "small_batches": Setting({"batch_size": 7}),
    "one_batch": Setting({"batch_size": 10_000}),
    "generator": Setting({"random_state": "RandomState"}),
    "early_stopping": Setting({"early_stopping": True, "validation_fraction": 0.3}),
    "stops": Setting({"n_iter_no_change": 2, "tol": 0.1}),
    "warm_start": Setting({"warm_start": True, "max_iter": EPOCHS // 2}, fits=2),
    "warm_sgd": Setting(SGD | {"warm_start": True, "max_iter": EPOCHS // 2}, fits=2),
    "partial_fit": Setting(partial=True),
    "partial_sgd": Setting(SGD | {"learning_rate": "invscaling"}, partial=True),
}
if TAKES_SAMPLE_WEIGHT:
    SETTINGS |= {
        "weighted": Setting(weighted=True),
        "weighted_sgd": Setting(SGD, weighted=True),
        "weighted_early": Setting({"early_stopping": True}, weighted=True),
        "weighted_partial": Setting(weighted=True, partial=True),
    }


def make(cls: Any, setting: Setting, seed: int) -> Any:
    parameters = {"max_iter": EPOCHS, "random_state": seed} | setting.parameters
    if parameters["random_state"] == "RandomState":
        parameters["random_state"] = np.random.RandomState(seed)
    return cls(**parameters)


def train(cls: Any, setting: Setting, X: Any, y: Any, seed: int = 3) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Got `batch_size`")
        return setting.train(make(cls, setting, seed), X, y)


def pairs() -> list[tuple[str, str, str]]:
    """Data set, setting and dtype of each comparison of this lane."""
    every = [
        (data, setting, dtype)
        for data, (kind, _) in DATASETS.items()
        for setting, details in SETTINGS.items()
        for dtype in ("float64", "float32")
        if kind in details.kinds
    ]
    if LONG:
        return every
    data, settings = list(DATASETS), list(SETTINGS)
    return [
        pair
        for pair in every
        if (settings.index(pair[1]) - data.index(pair[0])) % len(data) == 0
        and (pair[2] == "float64" or settings.index(pair[1]) % 2 == 0)
    ]


# ---- two small sets of data, and what can be seen of a call on them ----

X, Y = load("iris", "float64")
XR, YR = load("linnerud", "float64")
KINDS = pytest.mark.parametrize("kind", CLASSES)
needs_weights = pytest.mark.skipif(not TAKES_SAMPLE_WEIGHT, reason="scikit-learn before 1.7")


def data(kind):
    return (X, Y) if kind == "classifier" else (XR, YR)


def quiet(estimator, X, y, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(X, y, **arguments)


def fitted(kind, **parameters):
    """Ours and scikit-learn's."""
    parameters = {"max_iter": 10, "random_state": 0} | parameters
    return [quiet(cls(**parameters), *data(kind)) for cls in CLASSES[kind]]


def outcome(call):
    """What can be seen of a call: output, warnings and the error, but for the classes' modules."""
    error, out = None, io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(out):
        warnings.simplefilter("always")
        try:
            call()
        except Exception as raised:
            error = (type(raised), str(raised))
    seen = [(w.category, str(w.message), w.filename) for w in caught]
    return error, out.getvalue(), [w for w in seen if w[0] is not RuntimeWarning]
