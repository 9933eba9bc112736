"""Our perceptrons beside scikit-learn's: construction, messages, Ctrl-C, persistence."""

from __future__ import annotations

import inspect
import pickle
import signal
import threading
import warnings

import numpy as np
import pytest
from sklearn import base, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from twolayer_kernels import sklearn as ours
from twolayer_kernels.engine import run_chunk
from twolayer_kernels.sklearn import epochs
from twolayer_kernels.sklearn.epochs import Epochs, Orders
from twolayer_kernels.sklearn.versions import TAKES_SAMPLE_WEIGHT, AdamOptimizer, SGDOptimizer

from .sklearn_cases import (
    CLASSES,
    KINDS,
    SGD,
    X,
    Y,
    data,
    fitted,
    needs_weights,
    outcome,
    quiet,
)

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
    models = [cls(random_state=0, early_stopping=True) for cls in CLASSES[kind]]

    def interrupted(model):
        score = model._score

        def at_the_third(*arguments, **options):
            if model.n_iter_ == 3:
                raise KeyboardInterrupt
            return score(*arguments, **options)

        model._score = at_the_third
        model.fit(*data(kind))

    seen = [outcome(lambda m=m: interrupted(m)) for m in models]
    assert seen[0] == seen[1]
    assert seen[0][2][0][:2] == (UserWarning, "Training interrupted by user.")
    assert models[0].n_iter_ == models[1].n_iter_ == 3
    np.testing.assert_allclose(models[0].loss_curve_, models[1].loss_curve_, rtol=1e-12)


def test_an_interrupt_within_an_epoch(monkeypatch):
    before = Orders.draw

    def soon_interrupted(self, epochs):
        threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
        return before(self, epochs)

    monkeypatch.setattr(Orders, "draw", soon_interrupted)
    many = np.random.RandomState(0).randn(400_000, 20)
    model = ours.MLPRegressor(batch_size=5, max_iter=2, random_state=0)
    with pytest.warns(UserWarning, match="interrupted by user"):
        model.fit(many, many[:, 0])
    assert model.n_iter_ == 0
    assert 0 < model._optimizer.t < len(many) / 5
    assert np.isfinite(model.predict(many[:5])).all()


@KINDS
def test_an_interrupt_within_the_third_of_several_epochs(kind, monkeypatch):
    """What scikit-learn has then: two epochs' losses, and the generator after the third's order."""
    inputs, target = data(kind)
    steps = -(-len(inputs) // 5)

    def interrupted(training, samples, chunk, rates, losses, **options):
        assert len(chunk.first) > 3 * steps
        end = 2 * steps + 1
        some = chunk._replace(first=chunk.first[:end], size=chunk.size[:end])
        run_chunk(training, samples, some, rates, losses[:end], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(epochs, "run_chunk", interrupted)
    states = [np.random.RandomState(5) for _ in range(2)]
    fused, plain = (
        cls(random_state=state, batch_size=5, max_iter=most)
        for cls, state, most in zip(CLASSES[kind], states, (9, 3), strict=True)
    )
    with pytest.warns(UserWarning, match="interrupted by user"):
        fused.fit(inputs, target)
    with pytest.warns(ConvergenceWarning):
        plain.fit(inputs, target)
    assert fused.n_iter_ == 2
    assert fused.t_ == 2 * len(inputs)
    assert fused._optimizer.t == 2 * steps + 1
    np.testing.assert_allclose(fused.loss_curve_, plain.loss_curve_[:2], rtol=1e-12)
    assert states[0].randint(1 << 30) == states[1].randint(1 << 30)


@KINDS
@pytest.mark.parametrize("where", ["draw", "note", "loss"])
def test_an_interrupt_anywhere_leaves_what_was_trained(kind, where, monkeypatch):
    """Epochs, steps, losses and the generator's draws agree, as they do in scikit-learn."""
    inputs, target = data(kind)
    steps = -(-len(inputs) // 5)
    calls = []

    def at_the_second(call):
        def wrapper(*arguments):
            calls.append(arguments)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return call(*arguments)

        return wrapper

    if where == "draw":
        monkeypatch.setattr(Orders, "draw", at_the_second(Orders.draw))
    elif where == "note":
        monkeypatch.setattr(Epochs, "_note_steps", at_the_second(Epochs._note_steps))

    trained = ours.FusedTraining._epochs

    def interrupted(*arguments):  # among the losses of several epochs
        for number, loss in enumerate(trained(*arguments)):
            if number == 3:
                raise KeyboardInterrupt
            yield loss

    if where == "loss":
        monkeypatch.setattr(ours.FusedTraining, "_epochs", interrupted)
    state = np.random.RandomState(5)
    fused = CLASSES[kind][0](random_state=state, batch_size=5, max_iter=90)
    with pytest.warns(UserWarning, match="interrupted by user"):
        fused.fit(inputs, target)
    assert 0 < fused.n_iter_ == len(fused.loss_curve_) < 90
    assert fused._optimizer.t == fused.n_iter_ * steps
    assert fused.t_ == fused.n_iter_ * len(inputs)
    other = np.random.RandomState(5)
    plain = CLASSES[kind][1](random_state=other, batch_size=5, max_iter=fused.n_iter_)
    quiet(plain, inputs, target)
    np.testing.assert_allclose(fused.loss_curve_, plain.loss_curve_, rtol=1e-9)
    assert state.randint(1 << 30) == other.randint(1 << 30)


@KINDS
def test_a_patched_end_of_epochs_is_followed(kind, monkeypatch):
    inputs, target = data(kind)

    def halve(self, time_step):
        self.learning_rate *= 0.5

    monkeypatch.setattr(SGDOptimizer, "iteration_ends", halve)
    fused, plain = (
        quiet(cls(random_state=0, max_iter=8, **SGD), inputs, target) for cls in CLASSES[kind]
    )
    assert fused.engine_ == ("scikit-learn", "iteration_ends is not scikit-learn's")
    assert fused.loss_curve_ == plain.loss_curve_


def _clip(model):
    np.clip(model.coefs_[0], -0.05, 0.05, out=model.coefs_[0])


def _decay(model):
    model._optimizer.learning_rate_init *= 0.5


def _regularize(model):
    model.alpha *= 100


@KINDS
@pytest.mark.parametrize("samples", [30, None])
@pytest.mark.parametrize("edit", [_clip, _decay, _regularize])
def test_what_is_changed_between_epochs_counts(edit, samples, kind):
    inputs, target = (part[:samples] for part in data(kind))

    def edited(cls):
        class Edits(cls):
            def _update_no_improvement_count(self, *arguments):
                super()._update_no_improvement_count(*arguments)
                edit(self)

        return quiet(Edits(random_state=0, max_iter=8), inputs, target)

    fused, plain = map(edited, CLASSES[kind])
    assert fused.engine_.name == "scikit-learn"
    assert fused.loss_curve_ == plain.loss_curve_


@KINDS
def test_a_replaced_update_is_called(kind, monkeypatch):
    inputs, target = data(kind)
    update = AdamOptimizer._get_updates

    def clipped(self, grads):
        return update(self, [np.clip(grad, -1e-3, 1e-3) for grad in grads])

    monkeypatch.setattr(AdamOptimizer, "_get_updates", clipped)
    fused, plain = (quiet(cls(random_state=0, max_iter=8), inputs, target) for cls in CLASSES[kind])
    assert fused.loss_curve_ == plain.loss_curve_


@KINDS
def test_an_error_after_the_first_epoch_comes_after_one_epoch(kind):
    """Without a best loss, which early_stopping does not keep, scikit-learn compares with None."""
    inputs, target = data(kind)
    seen = []
    for cls in CLASSES[kind]:
        model = quiet(cls(random_state=0, early_stopping=True, max_iter=3), inputs, target)
        model.set_params(early_stopping=False, warm_start=True)
        with pytest.raises(TypeError) as caught:
            model.fit(inputs, target)
        seen.append((str(caught.value), model.n_iter_, model._optimizer.t))
    assert seen[0] == seen[1]


@KINDS
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_several_epochs_a_call_are_those_one_by_one(kind, solver):
    """Who sees an attribute change after each epoch finds the network of that epoch."""

    class Watching(CLASSES[kind][0]):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "_no_improvement_count" and self.loss_curve_:
                self.__dict__["seen"] = [*self.__dict__.get("seen", []), self.coefs_[0].copy()]

    inputs, target = data(kind)
    parameters = {"solver": solver, "random_state": 0, "max_iter": 40, "tol": 1e-3}
    parameters |= {"n_iter_no_change": 3, "learning_rate": "adaptive"}
    watching, at_once = Watching(**parameters), CLASSES[kind][0](**parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        watching.fit(inputs, target)
        at_once.fit(inputs, target)
    assert watching.loss_curve_ == at_once.loss_curve_
    assert len(watching.seen) == watching.n_iter_ == at_once.n_iter_
    assert not any(map(np.array_equal, watching.seen[1:], watching.seen))
    for one, other in zip(watching.coefs_, at_once.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)


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


def test_a_classifier_of_scikit_learns_may_become_ours():
    theirs = fitted("classifier")[1]
    theirs.__class__ = ours.MLPClassifier
    assert theirs.class_weight is None
    assert "class_weight" in base.clone(theirs).get_params()
    quiet(theirs, X, Y)
    assert theirs.engine_.name == "fused"


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
