"""Which of our perceptrons' fits run fused, and that all others are scikit-learn's own code."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from sklearn import neural_network

from twolayer_kernels import sklearn as ours
from twolayer_kernels.sklearn.versions import TAKES_SAMPLE_WEIGHT

from .sklearn_cases import CLASSES, KINDS, XR, YR, X, Y, data, fitted, outcome, quiet

OWN = {
    "two_layers": ({"hidden_layer_sizes": (5, 4)}, "2 hidden layers"),
    "no_layer": ({"hidden_layer_sizes": ()}, "0 hidden layers"),
    "tanh": ({"activation": "tanh"}, "activation='tanh'"),
    "identity": ({"activation": "identity"}, "activation='identity'"),
    "lbfgs": ({"solver": "lbfgs"}, "solver='lbfgs'"),
}


@KINDS
@pytest.mark.parametrize("case", OWN)
def test_everything_else_is_scikit_learns_own_code(kind, case):
    parameters, reason = OWN[case]
    fused, plain = fitted(kind, **parameters)
    assert fused.engine_.name == "scikit-learn"
    assert fused.engine_.reason.startswith(reason)
    for one, other in zip(fused.coefs_, plain.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(fused.predict(data(kind)[0]), plain.predict(data(kind)[0]))


@KINDS
def test_sparse_input_is_scikit_learns_own(kind):
    inputs, target = data(kind)
    sparse = scipy.sparse.csr_matrix(inputs)
    models = [quiet(cls(max_iter=5, random_state=0), sparse, target) for cls in CLASSES[kind]]
    assert models[0].engine_ == ("scikit-learn", "sparse input")
    np.testing.assert_array_equal(*(m.coefs_[0] for m in models))
    fused, plain = fitted(kind)
    np.testing.assert_allclose(fused.predict(sparse), plain.predict(sparse), rtol=1e-9)


@pytest.mark.skipif(not TAKES_SAMPLE_WEIGHT, reason="scikit-learn before 1.7")
def test_the_poisson_loss_is_scikit_learns_own():
    models = [
        quiet(cls(loss="poisson", max_iter=5, random_state=0), X, Y) for cls in CLASSES["regressor"]
    ]
    assert models[0].engine_ == ("scikit-learn", "loss='poisson' is not fused")
    np.testing.assert_array_equal(*(m.predict(X) for m in models))


@pytest.mark.parametrize(("shift", "scale"), [(1e8, 1), (0, 1e10), (0, 1e17), (5e3, 0.1)])
def test_targets_that_float32_cannot_hold_are_scikit_learns_own(shift, scale):
    y = YR[:, 0] * scale + shift
    models = [
        quiet(cls(max_iter=20, random_state=0), XR.astype(np.float32), y)
        for cls in CLASSES["regressor"]
    ]
    assert models[0].engine_.name == "scikit-learn"
    assert "loses too much as float32" in models[0].engine_.reason
    np.testing.assert_array_equal(models[0].loss_curve_, models[1].loss_curve_)


def test_targets_that_float32_nearly_holds_are_fused():
    y = YR[:, 0] + np.random.RandomState(0).rand(len(YR))
    fused, plain = [
        quiet(cls(max_iter=20, random_state=0), XR.astype(np.float32), y)
        for cls in CLASSES["regressor"]
    ]
    assert fused.engine_.name == "fused"
    np.testing.assert_allclose(fused.loss_curve_, plain.loss_curve_, rtol=1e-5)


def test_a_replaced_method_is_called():
    class Counting(ours.MLPClassifier):
        calls = 0

        def _backprop(self, *args, **kwargs):
            Counting.calls += 1
            return super()._backprop(*args, **kwargs)

    model = quiet(Counting(max_iter=3), X, Y)
    assert Counting.calls == 3
    assert model.engine_ == ("scikit-learn", "_backprop is not scikit-learn's")


def test_explain_says_what_would_run_and_what_ran():
    pytest.importorskip("torch")
    from twolayer_kernels import explain

    model = ours.MLPClassifier(max_iter=5)
    expected = "MLPClassifier: fused (one hidden layer of ReLUs, solver='adam')"
    assert explain(model, X) == expected
    assert explain(quiet(model, X, Y), X) == expected
    sparse = scipy.sparse.csr_matrix(X)
    assert explain(model, sparse) == "MLPClassifier: scikit-learn (sparse input)"
    for parameters, reason in OWN.values():
        told = explain(ours.MLPRegressor(**parameters), X)
        assert told.startswith(f"MLPRegressor: scikit-learn ({reason}")
        assert explain(quiet(ours.MLPRegressor(**parameters, max_iter=2), X, Y), X) == told
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor"):
        explain(neural_network.MLPClassifier(), X)


@KINDS
def test_parts_of_several_dtypes(kind):
    """Later parts in another dtype than the first: as scikit-learn mixes them."""
    inputs, target = data(kind)
    extra = {"classes": [0, 1, 2]} if kind == "classifier" else {}
    for first, second, engine in (
        ("float64", "float32", "fused"),
        ("float32", "float64", "scikit-learn"),
    ):
        models = [cls(random_state=0) for cls in CLASSES[kind]]
        for model in models:
            for dtype in (first, second, first):
                model.partial_fit(inputs.astype(dtype), target, **extra)
                if model is models[0] and dtype == second:
                    assert model.engine_.name == engine
        for fused, plain in zip(*(m.coefs_ for m in models), strict=True):
            assert fused.dtype == plain.dtype == first
            tolerance = 1e-9 if first == "float64" else 1e-5
            np.testing.assert_allclose(fused, plain, rtol=0, atol=tolerance)


@KINDS
@pytest.mark.parametrize("case", ["outputs", "loss", "optimizer", "layers", "huge", "replaced"])
def test_what_changes_between_two_fits(kind, case):
    """Other outputs, losses or weights than training began with: results or errors are the same."""
    inputs, target = data(kind)

    def again(model):
        if case == "outputs":
            target2 = np.eye(3, dtype=int)[Y] if kind == "classifier" else YR[:, :2]
            return model.set_params(warm_start=True).fit(inputs, target2)
        if case == "loss" and kind == "regressor" and TAKES_SAMPLE_WEIGHT:
            model = model.set_params(loss="poisson").fit(inputs, np.abs(target))
            model.set_params(loss="squared_error")
        elif case == "optimizer":
            model.set_params(solver="sgd")
        elif case == "layers":
            model.set_params(hidden_layer_sizes=(3, 3))
        elif case == "huge" and kind == "regressor":
            model.fit(inputs.astype(np.float32), target.astype(np.float32))
            return model.partial_fit(inputs.astype(np.float32), target * 1e39)
        elif case == "replaced":
            model.coefs_ = [np.ones((inputs.shape[1], 7)), np.ones((7, model.n_outputs_))]
            model.intercepts_ = [np.ones(7), np.ones(model.n_outputs_)]
        return model.partial_fit(inputs, target)

    models = fitted(kind)
    seen = [outcome(lambda m=m: again(m)) for m in models]
    assert seen[0] == seen[1]
    for fused, plain in zip(*(m.coefs_ + m.intercepts_ for m in models), strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-6, atol=1e-9)


@KINDS
def test_weights_that_cannot_be_written_to(kind):
    inputs, target = data(kind)
    models = fitted(kind)
    for model in models:
        model.coefs_[0].flags.writeable = False
    seen = [outcome(lambda m=m: m.partial_fit(inputs, target)) for m in models]
    assert seen[0] == seen[1]
    assert seen[0][0][0] is ValueError
