"""Our perceptrons beside scikit-learn's: construction, messages, predictions, persistence."""

from __future__ import annotations

import contextlib
import inspect
import io
import pickle
import signal
import threading
import warnings
from functools import cache

import numpy as np
import pytest
import scipy.sparse
from sklearn import base, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from twolayer_kernels import sklearn as ours
from twolayer_kernels.sklearn.epochs import Epochs
from twolayer_kernels.sklearn.versions import TAKES_SAMPLE_WEIGHT

from .sklearn_cases import CLASSES, SGD, load

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


# ---- construction ----


@KINDS
def test_the_constructor_is_scikit_learns(kind):
    fused, plain = (inspect.signature(cls) for cls in CLASSES[kind])
    added = [name for name in fused.parameters if name not in plain.parameters]
    assert added == (["class_weight"] if kind == "classifier" else [])
    assert list(fused.parameters)[: len(plain.parameters)] == list(plain.parameters)
    assert all(fused.parameters[name] == parameter for name, parameter in plain.parameters.items())


@KINDS
def test_isinstance_params_clone_and_repr(kind):
    fused, plain = CLASSES[kind]
    model = fused(hidden_layer_sizes=(7,), alpha=0.5)
    assert isinstance(model, plain)
    assert base.is_classifier(model) == (kind == "classifier")
    copy = base.clone(model.set_params(batch_size=9))
    assert type(copy) is fused
    assert copy.get_params() == model.get_params()
    assert repr(copy) == repr(plain(hidden_layer_sizes=(7,), alpha=0.5, batch_size=9))


def test_class_weight_is_a_parameter():
    model = ours.MLPClassifier((7,), class_weight="balanced")
    assert model.get_params()["class_weight"] == base.clone(model).class_weight == "balanced"
    assert repr(model) == "MLPClassifier(class_weight='balanced', hidden_layer_sizes=(7,))"


@KINDS
def test_the_same_attributes(kind):
    fused, plain = fitted(kind, early_stopping=True)
    assert set(vars(fused)) - set(vars(plain)) <= {"engine_", "class_weight"}
    assert set(vars(plain)) <= set(vars(fused))
    for name, value in vars(plain).items():
        if not name.startswith("_"):
            assert type(getattr(fused, name)) is type(value), name


# ---- what is said ----

SAID = {
    "verbose": {"verbose": True, "max_iter": 3},
    "stops": {"verbose": True, "max_iter": 9, "tol": 5.0, "n_iter_no_change": 2},
    "adaptive": SGD | {
        "verbose": True, "learning_rate": "adaptive", "tol": 5.0, "n_iter_no_change": 1,
        "max_iter": 40,
    },
    "early": {"verbose": True, "early_stopping": True, "max_iter": 4},
    "early_stops": {"verbose": True, "early_stopping": True, "tol": 9.0, "n_iter_no_change": 2},
    "clipped_batch": {"batch_size": 1000, "max_iter": 2},
    "own_code": {"verbose": True, "max_iter": 3, "activation": "tanh"},
}  # fmt: skip


@KINDS
@pytest.mark.parametrize("case", SAID)
def test_output_and_warnings(kind, case):
    parameters = {"random_state": 0} | SAID[case]
    seen = [outcome(lambda cls=cls: cls(**parameters).fit(*data(kind))) for cls in CLASSES[kind]]
    assert seen[0] == seen[1]
    assert seen[0][1] or seen[0][2]


BAD = {
    "hidden": ({"hidden_layer_sizes": (0,)}, {}),
    "negative": ({"hidden_layer_sizes": -1}, {}),
    "solver": ({"solver": "rmsprop"}, {}),
    "alpha": ({"alpha": -1}, {}),
    "batch": ({"batch_size": 0}, {}),
    "nan": ({}, {"X": np.where(X > 1, np.nan, X)}),
    "infinite": ({}, {"X": np.where(X > 1, np.inf, X)}),
    "text": ({}, {"X": np.full(X.shape, "a")}),
    "one_dimension": ({}, {"X": X[:, 0]}),
    "lengths": ({}, {"y": Y[:-1]}),
    "no_samples": ({}, {"X": X[:0], "y": Y[:0]}),
    "nothing_held_out": ({"early_stopping": True, "validation_fraction": 0.005}, {}),
    "continuous": ({}, {"y": Y + 0.5}),
    "diverges": (SGD | {"learning_rate_init": 1e200}, {}),
    "diverges_in_float32": (SGD | {"learning_rate_init": 1e30}, {"X": X.astype(np.float32)}),
}

NO_ERRORS = {("regressor", "continuous")}
if not TAKES_SAMPLE_WEIGHT:
    NO_ERRORS.add(("classifier", "nothing_held_out"))


@KINDS
@pytest.mark.parametrize("case", BAD)
def test_errors(kind, case):
    parameters, arguments = BAD[case]
    arguments = {"X": X, "y": Y} | arguments
    parameters = {"max_iter": 3, "random_state": 0} | parameters
    seen = [outcome(lambda cls=cls: cls(**parameters).fit(**arguments)) for cls in CLASSES[kind]]
    assert seen[0] == seen[1]
    assert seen[0][0] is not None or (kind, case) in NO_ERRORS


def test_errors_of_later_calls():
    """Warm starts with other classes, unknown classes, other features, early stopping in parts."""

    def later(cls, name):
        model = cls(max_iter=2, random_state=0, warm_start=name == "warm")
        if name == "early":
            return model.set_params(early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])
        if name == "unfitted":
            return model.predict(X)
        if name == "no_classes":
            return model.partial_fit(X, Y)
        model.fit(X, Y)
        return {
            "warm": lambda: model.fit(X, Y % 2),
            "unknown": lambda: model.partial_fit(X, Y + 1),
            "features": lambda: model.predict(X[:, :2]),
            "missing": lambda: model.predict_proba(np.full((1, 4), np.nan)),
        }[name]()

    for name in ("warm", "early", "unfitted", "no_classes", "unknown", "features", "missing"):
        seen = [
            outcome(lambda cls=cls, name=name: later(cls, name)) for cls in CLASSES["classifier"]
        ]
        assert seen[0] == seen[1], name
        assert seen[0][0] is not None, name


@needs_weights
def test_weights_that_are_nothing_in_a_batch():
    weight = np.ones(len(X))
    weight[60:70] = 0
    parameters = {"batch_size": 10, "shuffle": False, "random_state": 0, "max_iter": 2}
    models = [cls(**parameters) for cls in CLASSES["classifier"]]
    seen = [outcome(lambda m=m: m.fit(X, Y, sample_weight=weight)) for m in models]
    assert seen[0] == seen[1]
    assert seen[0][0][0] is ZeroDivisionError
    for fused, plain in zip(*(m.coefs_ for m in models), strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-12)


# ---- Ctrl-C ----


@KINDS
def test_an_interrupt_between_epochs(kind):
    models = [cls(random_state=0) for cls in CLASSES[kind]]

    def interrupted(model):
        count = model._update_no_improvement_count

        def at_the_third(*arguments):
            if model.n_iter_ == 3:
                raise KeyboardInterrupt
            count(*arguments)

        model._update_no_improvement_count = at_the_third
        model.fit(*data(kind))

    seen = [outcome(lambda m=m: interrupted(m)) for m in models]
    assert seen[0] == seen[1]
    assert seen[0][2][0][:2] == (UserWarning, "Training interrupted by user.")
    assert models[0].n_iter_ == models[1].n_iter_ == 3
    np.testing.assert_allclose(models[0].loss_curve_, models[1].loss_curve_, rtol=1e-12)


def test_an_interrupt_within_an_epoch(monkeypatch):
    before = Epochs._steps_with_weight

    def soon_interrupted(self, order):
        threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
        return before(self, order)

    monkeypatch.setattr(Epochs, "_steps_with_weight", soon_interrupted)
    many = np.random.RandomState(0).randn(400_000, 20)
    model = ours.MLPRegressor(batch_size=5, max_iter=2, random_state=0)
    with pytest.warns(UserWarning, match="interrupted by user"):
        model.fit(many, many[:, 0])
    assert model.n_iter_ == 0
    assert 0 < model._optimizer.t < len(many) / 5
    assert np.isfinite(model.predict(many[:5])).all()


# ---- which engine ----

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


# ---- predictions ----

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


# ---- persistence, and other estimators around these ----


@KINDS
def test_pickles_go_on_where_they_were(kind):
    inputs, target = data(kind)
    fused, plain = fitted(kind)
    copy = pickle.loads(pickle.dumps(fused))
    assert copy.engine_ == fused.engine_
    np.testing.assert_array_equal(copy.predict(inputs), fused.predict(inputs))
    for model in (copy, fused, plain):
        model.partial_fit(inputs, target)
    np.testing.assert_array_equal(copy.coefs_[0], fused.coefs_[0])
    np.testing.assert_allclose(copy.coefs_[0], plain.coefs_[0], rtol=1e-9)


@KINDS
def test_a_state_of_scikit_learns_goes_on(kind):
    """What one class has begun the other continues, weights, optimizer and all."""
    inputs, target = data(kind)
    for there, back in (CLASSES[kind], CLASSES[kind][::-1]):
        begun = quiet(there(max_iter=5, random_state=np.random.RandomState(0)), inputs, target)
        reference = pickle.loads(pickle.dumps(begun))
        other = back(random_state=begun._random_state)
        vars(other).update(vars(pickle.loads(pickle.dumps(begun))))
        for model in (other, reference):
            model.partial_fit(inputs, target)
        np.testing.assert_allclose(other.coefs_[0], reference.coefs_[0], rtol=1e-9)


def test_in_a_pipeline_and_a_search():
    found = []
    for cls in CLASSES["classifier"]:
        search = GridSearchCV(
            make_pipeline(StandardScaler(), cls(max_iter=5, random_state=0)),
            {"mlpclassifier__alpha": np.logspace(-4, 0, 2), "mlpclassifier__batch_size": [20, 50]},
            cv=3,
        )
        found.append(quiet(search, X, Y))
    assert found[0].best_params_ == found[1].best_params_
    np.testing.assert_allclose(*(s.cv_results_["mean_test_score"] for s in found), rtol=1e-12)


def test_a_fit_that_does_not_converge_warns_as_scikit_learns():
    with pytest.warns(ConvergenceWarning, match="Maximum iterations") as caught:
        ours.MLPClassifier(max_iter=2).fit(X, Y)
    assert caught[0].filename == inspect.getfile(neural_network.MLPClassifier)
