"""Training walks scikit-learn's own trajectory: losses, weights, counters, random numbers."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
from sklearn.neural_network._base import LOSS_FUNCTIONS

from .sklearn_cases import BAND, CLASSES, DATASETS, SETTINGS, load, pairs, train


def distance(curve, exact):
    """The largest relative one."""
    curve, exact = np.asarray(curve, np.float64), np.asarray(exact, np.float64)
    assert curve.shape == exact.shape
    return np.max(np.abs(curve - exact) / np.abs(exact))


def assert_same_course(fused, plain):
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(fused, name) == getattr(plain, name), name
    for ours, theirs in zip(
        fused.coefs_ + fused.intercepts_, plain.coefs_ + plain.intercepts_, strict=True
    ):
        assert (ours.shape, ours.dtype, ours.strides) == (
            theirs.shape, theirs.dtype, theirs.strides,
        )  # fmt: skip
    assert getattr(fused._optimizer, "t", None) == getattr(plain._optimizer, "t", None)
    np.testing.assert_allclose(
        fused._optimizer.learning_rate, plain._optimizer.learning_rate, rtol=1e-15
    )
    ours, theirs = (m._random_state.get_state() for m in (fused, plain))
    assert ours[2] == theirs[2]
    np.testing.assert_array_equal(ours[1], theirs[1])


def assert_close_in_float64(fused, plain):
    assert fused._no_improvement_count == plain._no_improvement_count
    assert distance(fused.loss_curve_, plain.loss_curve_) <= BAND
    assert abs(fused.loss_ - plain.loss_) <= BAND * abs(plain.loss_)
    for name in ("best_loss_", "best_validation_score_", "validation_scores_"):
        ours, theirs = getattr(fused, name), getattr(plain, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=BAND, err_msg=name)
    for ours, theirs in zip(
        fused.coefs_ + fused.intercepts_, plain.coefs_ + plain.intercepts_, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8 * np.abs(theirs).max())


@cache
def scikit_learns(data, setting, dtype, seed=3):
    return train(CLASSES[DATASETS[data][0]][1], SETTINGS[setting], *load(data, dtype), seed)


@cache
def in_float64(data, setting, seed):
    """scikit-learn's curve in float64, with probabilities clipped as they are in float32."""
    eps = np.finfo(np.float32).eps

    def clipped(loss):
        return lambda y, p, *weight: loss(y, np.clip(p, eps, 1 - eps), *weight)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("log_loss", "binary_log_loss"):
            patch.setitem(LOSS_FUNCTIONS, name, clipped(LOSS_FUNCTIONS[name]))
        cls = CLASSES[DATASETS[data][0]][1]
        return train(cls, SETTINGS[setting], *load(data, "float64"), seed).loss_curve_


@pytest.mark.parametrize(
    ("data", "setting"), [pair[:2] for pair in pairs() if pair[2] == "float64"]
)
def test_the_same_trajectory(data, setting, record_property):
    fused = train(CLASSES[DATASETS[data][0]][0], SETTINGS[setting], *load(data, "float64"))
    plain = scikit_learns(data, setting, "float64")
    assert fused.engine_.name == "fused"
    record_property("distance", float(distance(fused.loss_curve_, plain.loss_curve_)))
    assert_same_course(fused, plain)
    assert_close_in_float64(fused, plain)


def over_budget(data, setting, seed):
    """How far the float32 curve is from the float64 one, of 4 times scikit-learn's plus 10 eps.

    That of the first epochs too: what rounding does there, some settings later make a hundred
    thousand times as large.
    """
    fused = train(CLASSES[DATASETS[data][0]][0], SETTINGS[setting], *load(data, "float32"), seed)
    plain = scikit_learns(data, setting, "float32", seed)
    assert fused.engine_.name == "fused"
    curves = [fused.loss_curve_, plain.loss_curve_, in_float64(data, setting, seed)]
    length = min(map(len, curves))
    if len(set(map(len, curves))) == 1:
        assert_same_course(fused, plain)
    shares = []
    for epochs in (min(5, length), length):
        ours, theirs, exact = (np.array(curve[:epochs], np.float64) for curve in curves)
        budget = 4 * distance(theirs, exact) + 10 * np.finfo(np.float32).eps
        shares.append(distance(ours, exact) / budget)
    return max(shares)


@pytest.mark.parametrize(
    ("data", "setting"), [pair[:2] for pair in pairs() if pair[2] == "float32"]
)
def test_the_same_trajectory_in_float32(data, setting, record_property):
    """Within the budget from one seed, or from the next two.

    Rounding may carry a sample over the kink of a hidden unit, on either side; that unit's weights
    then jump apart between two epochs, by a thousand times what others differ (digits, seed 3, unit
    43, epoch 14; one of 16 seeds).
    """
    share = over_budget(data, setting, 3)
    record_property("share", float(share))
    if share > 1:
        assert max(over_budget(data, setting, seed) for seed in (4, 5)) <= 1


def test_where_a_tie_decides_training_may_stop_an_epoch_apart():
    """``tol`` set to an epoch's very gain: the last bit of a loss says whether it is enough."""
    X, y = load("wine", "float64")
    ours, theirs = CLASSES["classifier"]

    def trained(cls, tol):
        parameters = {"max_iter": 60, "tol": tol, "n_iter_no_change": 1, "random_state": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cls(**parameters).fit(X, y).loss_curve_

    curve = trained(theirs, 0)
    for epoch in range(6, 9):
        gain = curve[epoch - 1] - curve[epoch]
        fused, plain = trained(ours, gain), trained(theirs, gain)
        epochs = min(len(fused), len(plain))
        assert abs(len(fused) - len(plain)) <= 1
        assert distance(fused[:epochs], plain[:epochs]) <= BAND
        for beside in (gain * (1 - 1e-9), gain * (1 + 1e-9)):
            assert len(trained(ours, beside)) == len(trained(theirs, beside))
