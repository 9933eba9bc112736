"""``class_weight``, which scikit-learn's own perceptron does not have: sample weights by class."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_sample_weight

from twolayer_kernels.sklearn import MLPClassifier
from twolayer_kernels.sklearn.versions import TAKES_SAMPLE_WEIGHT

from .sklearn_cases import SGD, load

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
needs_weights = pytest.mark.skipif(not TAKES_SAMPLE_WEIGHT, reason="scikit-learn before 1.7")

X, Y = load("wine", "float64")
XL, YL = load("multilabel", "float64")
NAMES = np.array(["barolo", "grignolino", "barbera"])[Y]

CASES = {
    "balanced": (X, Y, "balanced"),
    "dict": (X, Y, {0: 1.0, 1: 0.25, 2: 3}),
    "some_classes": (X, Y, {1: 5.0}),
    "names": (X, NAMES, {"barolo": 2.0, "barbera": 0.5, "grignolino": 1.0}),
    "binary": (X, Y == 1, "balanced"),
    "multilabel": (XL, YL, "balanced"),
    "multilabel_dicts": (XL, YL, [{0: 1, 1: 4}] * YL.shape[1]),
}
PARAMETERS = {
    "adam": {},
    "sgd": SGD,
    "early_stopping": {"early_stopping": True},
    "lbfgs": {"solver": "lbfgs"},
    "two_layers": {"hidden_layer_sizes": (5, 4)},
}


@needs_weights
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_as_sample_weights(case, parameters):
    x, y, class_weight = CASES[case]
    options = {"max_iter": 10, "random_state": 0} | PARAMETERS[parameters]
    own = np.random.RandomState(0).rand(len(x)) if case == "dict" else None
    fused = MLPClassifier(class_weight=class_weight, **options).fit(x, y, sample_weight=own)
    weight = compute_sample_weight(class_weight, y) * (1 if own is None else own)
    plain = neural_network.MLPClassifier(**options).fit(x, y, sample_weight=weight)
    assert fused.engine_.name == (
        "scikit-learn" if parameters in ("lbfgs", "two_layers") else "fused"
    )
    np.testing.assert_allclose(fused.predict_proba(x), plain.predict_proba(x), rtol=1e-8)
    if parameters == "early_stopping":
        np.testing.assert_allclose(fused.validation_scores_, plain.validation_scores_, rtol=1e-12)


def test_it_moves_the_decision():
    few = np.concatenate([np.flatnonzero(Y == 0)[:8], np.flatnonzero(Y == 1)])
    rare = (Y[few] == 0).astype(int)
    plain, weighted = (
        MLPClassifier(max_iter=30, random_state=0, class_weight=weight).fit(X[few], rare)
        for weight in (None, "balanced")
    )
    assert weighted.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean() + 0.05


def test_parts_that_lack_a_class():
    parts = [slice(0, 40), slice(40, 178)]
    assert set(Y[parts[0]]) == {0}
    fused = MLPClassifier(class_weight={0: 0.5, 2: 3.0}, random_state=0)
    for part in parts:
        fused.partial_fit(X[part], Y[part], classes=[0, 1, 2])
    if TAKES_SAMPLE_WEIGHT:
        plain = neural_network.MLPClassifier(random_state=0)
        for part in parts:
            weight = np.array([0.5, 1.0, 3.0])[Y[part]]
            plain.partial_fit(X[part], Y[part], weight, classes=[0, 1, 2])
        np.testing.assert_allclose(fused.coefs_[0], plain.coefs_[0], rtol=0, atol=1e-12)


def test_refusals():
    with pytest.raises(ValueError, match=r"balanced.*partial_fit"):
        MLPClassifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="'class_weight' parameter"):
        MLPClassifier(class_weight="heavy").fit(X, Y)
    with pytest.raises(ValueError, match="not in class_weight"):
        MLPClassifier(class_weight={0: 1, 7: 2}).fit(X, Y)
    if not TAKES_SAMPLE_WEIGHT:
        with pytest.raises(NotImplementedError, match=r"1\.7 or newer"):
            MLPClassifier(class_weight="balanced", solver="lbfgs").fit(X, Y)


def test_it_warns_like_any_fit():
    with pytest.warns(ConvergenceWarning):
        MLPClassifier(class_weight="balanced", max_iter=2).fit(X, Y)
