"""Predictions of our perceptrons beside scikit-learn's, by kinds of input and output."""

from __future__ import annotations

import pickle
from functools import cache

import numpy as np
import pytest

from .sklearn_cases import (
    CLASSES,
    KINDS,
    X,
    Y,
    data,
    fitted,
    outcome,
    quiet,
)

INPUTS = {
    "float64": X,
    "float32": X.astype(np.float32),
    "float16": X.astype(np.float16),
    "integers": np.rint(X).astype(int),
    "list": X[:5].tolist(),
    "one_row": X[:1],
    "by_columns": np.asfortranarray(X),
    "strided": np.repeat(X, 2, axis=1)[:, ::2],
    "backwards": X[::-1],
    "big_endian": X.astype(">f8"),
}


TARGETS = {
    "softmax": ("classifier", Y),
    "logistic": ("classifier", Y % 2),
    "labels": ("classifier", np.eye(3, dtype=int)[Y]),
    "regression": ("regressor", X[:, :2]),
}


@cache
def networks_of_the_same_weights(target, dtype):
    kind, y = TARGETS[target]
    fused, plain = (
        quiet(cls(max_iter=5, random_state=0), X.astype(dtype), y) for cls in CLASSES[kind]
    )
    fused.coefs_, fused.intercepts_ = plain.coefs_, plain.intercepts_
    return fused, plain


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", INPUTS)
@pytest.mark.parametrize("target", TARGETS)
def test_predictions(target, case, dtype):
    models = networks_of_the_same_weights(target, dtype)
    assert models[0].engine_.name == "fused"
    for method in ("predict_proba", "predict_log_proba", "predict"):
        if hasattr(models[0], method):
            one, other = (getattr(m, method)(INPUTS[case]) for m in models)
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            tolerance = 1e-5 if one.dtype == np.float32 else 1e-12
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance / 10)


def test_weights_of_other_shapes():
    models = networks_of_the_same_weights("softmax", "float64")
    for name, array in (("coefs_", np.ones((4, 9))), ("intercepts_", np.ones((1, 100)))):
        copies = [pickle.loads(pickle.dumps(model)) for model in models]
        for copy in copies:
            getattr(copy, name)[0] = array
        seen = [outcome(lambda copy=copy: print(copy.predict_proba(X[:2]))) for copy in copies]
        assert seen[0] == seen[1], name


@pytest.mark.parametrize("activation", ["logistic", "identity"])
def test_an_activation_that_is_changed_after_the_fit(activation):
    models = networks_of_the_same_weights("softmax", "float64")
    copies = [
        pickle.loads(pickle.dumps(model)).set_params(activation=activation) for model in models
    ]
    np.testing.assert_allclose(*(copy.predict_proba(X) for copy in copies), rtol=1e-12)


@KINDS
def test_score(kind):
    fused, plain = fitted(kind)
    np.testing.assert_allclose(fused.score(*data(kind)), plain.score(*data(kind)), rtol=1e-9)


def test_names_of_features():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    seen = []
    for cls in CLASSES["classifier"]:
        model = quiet(cls(max_iter=3, random_state=0), frame, Y)
        assert list(model.feature_names_in_) == list("abcd")
        seen.append(outcome(lambda model=model: model.predict(X)))
    assert seen[0] == seen[1]
