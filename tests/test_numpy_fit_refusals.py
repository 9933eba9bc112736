"""What ``fit`` and ``step`` refuse on NumPy arrays, and that nothing is written then."""

from __future__ import annotations

import numpy as np
import pytest

from twolayer_kernels.numpy import fit, step, two_layer

from .training import small_arrays

X, Y = np.ones((6, 3)), np.ones((6, 2))


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (ValueError, "as many rows, got 6 and 5", {"y": Y[:5]}),
        (ValueError, r"y must have shape \(6, 2\)", {"y": np.ones((6, 3))}),
        (TypeError, "y must have x's dtype float64", {"y": Y.astype(np.float32)}),
        (TypeError, "got list", {"y": [[1.0, 2.0]] * 6}),
        (ValueError, "got none", {"x": X[:0], "y": Y[:0]}),
        (TypeError, "int64", {"loss": "cross_entropy"}),
        (
            ValueError,
            "from 0 to 1, got 5 in row 3",
            {"y": np.array([0, 1, 0, 5, 0, 7]), "loss": "cross_entropy"},
        ),
        (ValueError, "sgd, adam, rmsprop, adamw", {"optimizer": "lion"}),
        (ValueError, "mse_sum, mse_mean", {"loss": "hinge"}),
        (TypeError, "sgd has no option betas", {"betas": (0.9, 0.9)}),
        (ValueError, "one of steps and epochs", {"epochs": 2}),
        (ValueError, "steps must be >= 1, got 0", {"steps": 0}),
        (TypeError, "steps must be an int", {"steps": 1.5}),
        (ValueError, r"\(6,\), got \(5,\)", {"sample_weight": np.ones(5)}),
        (ValueError, "'stop'|stop, continue", {"nan": "ignore"}),
        (ValueError, "must have shape", {"optimizer": "adam", "state": {"w1.exp_avg": np.ones(3)}}),
    ],
)
def test_bad_input_is_refused_with_nothing_written(error, words, changes):
    random = np.random.default_rng(0)
    w1, w2 = random.random((4, 3)), random.random((2, 4))
    before = w1.copy(), w2.copy()
    arguments = {"x": X, "y": Y, "steps": 2, "lr": 0.1, **changes}
    with pytest.raises(error, match=words):
        fit(arguments.pop("x"), arguments.pop("y"), w1, w2, **arguments)
    np.testing.assert_array_equal(w1, before[0])
    np.testing.assert_array_equal(w2, before[1])


def test_weights_that_cannot_be_written_are_refused():
    w1, w2 = np.ones((4, 3)), np.ones((2, 4))
    w2.flags.writeable = False
    with pytest.raises(ValueError, match="w2 is trained in place"):
        fit(X, Y, w1, w2, steps=1)


def test_weights_that_share_memory_are_refused():
    square, x4 = np.ones((4, 4)), np.ones((6, 4))
    b = np.zeros(4)
    for arguments, words in (
        ((x4, x4, square, square), "w1 and w2 share memory"),
        ((x4, x4, square, square.T), "w1 and w2 share memory"),
        ((x4, x4, square, square.copy(), b, b), "b1 and b2 share memory"),
        ((x4, square, square.copy(), square), "as many rows"),
        ((square, np.ones((4, 4)), square, np.ones((4, 4))), "x and w1 share memory"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(*arguments, steps=1)


BAD_OPTIONS = {
    "momentum": (ValueError, "momentum must be at least 0", {"momentum": -1.0}),
    "nesterov": (ValueError, "nesterov needs a momentum", {"nesterov": True}),
    "lr": (TypeError, "lr must be a number, got 'a'", {"lr": "a"}),
    "negative": (ValueError, "lr must be at least 0, got -1", {"lr": -1}),
    "betas": (ValueError, "betas must be from 0", {"optimizer": "adam", "betas": (1, 0.9)}),
    "flag": (TypeError, "maximize must be a bool", {"maximize": 1}),
    "loss option": (
        TypeError,
        "mse_sum has no option class_weights; it has none",
        {"loss_options": {"class_weights": [1, 5]}},
    ),
    "penalty": (ValueError, "l2_penalty must be finite", {"l2_penalty": np.inf}),
    "rng": (TypeError, "must be a numpy.random.Generator, got int", {"rng": 0}),
    "callback": (TypeError, "callback must be callable", {"callback": 3}),
    "no schedule": (TypeError, "schedule must be callable, got int", {"schedule": 3}),
    "no optimizer": (TypeError, "optimizer must be a str, got NoneType", {"optimizer": None}),
    "no loss": (TypeError, "loss must be a str, got dict", {"loss": {}}),
    "loss options": (TypeError, "loss_options must be a dict", {"loss_options": ["mean"]}),
    "beyond float64": (TypeError, "lr must be a number, got 1000", {"lr": 10**400}),
    "penalty beyond": (TypeError, "l2_penalty must be a number", {"l2_penalty": 10**400}),
    "pos_weight": (
        ValueError,
        r"pos_weight must have shape \(2,\), got \(3,\)",
        {"loss": "bce_with_logits", "loss_options": {"pos_weight": [1.0, 2.0, 3.0]}},
    ),
    "mean": (
        TypeError,
        "mean must be a bool",
        {"loss": "bce_with_logits", "loss_options": {"mean": "yes"}},
    ),
    "complex weights": (
        TypeError,
        "sample_weight must hold real numbers",
        {"sample_weight": np.ones(6) * 1j},
    ),
    "masked weights": (
        TypeError,
        "sample_weight must be plain numbers, got MaskedArray",
        {"sample_weight": np.ma.ones(6)},
    ),
    "a list for a state": (TypeError, "state must be a dict, got list", {"state": []}),
    "a state of lists": (
        TypeError,
        "momentum_buffer'.* must be a numpy.ndarray, got list",
        {"state": {"w1.momentum_buffer": [1]}},
    ),
    "steps below 0": (ValueError, "'step'.* must count steps, got -5", {"state": {"step": -5}}),
    "half steps": (ValueError, "must count steps, got 2.5", {"state": {"step": 2.5}}),
    "no step": (ValueError, "must count steps, got nan", {"state": {"step": float("nan")}}),
    "words": (ValueError, "must count steps, got 'a'", {"state": {"step": "a"}}),
    "state": (
        ValueError,
        "state holds w1.exp_avg, which is nothing of sgd's",
        {"state": {"w1.exp_avg": np.zeros((4, 3)), "step": np.array(3)}},
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_refused_with_nothing_written(case):
    error, words, options = BAD_OPTIONS[case]
    x, y, w1, w2 = small_arrays()
    before = w1.copy(), w2.copy()
    with pytest.raises(error, match=words):
        fit(x, y, w1, w2, **({"steps": 1} | options))
    np.testing.assert_array_equal(w1, before[0])
    np.testing.assert_array_equal(w2, before[1])


def test_a_refused_state_is_left_as_it_was():
    x, y, w1, w2 = small_arrays()
    state = {"w2.exp_avg": np.zeros((3, 3))}
    with pytest.raises(ValueError, match="shape"):
        fit(x, y, w1, w2, steps=1, optimizer="adam", state=state)
    assert list(state) == ["w2.exp_avg"]


@pytest.mark.parametrize("failure", ["read-only", "not finite"])
def test_a_state_is_begun_by_the_first_step(failure):
    x, y, w1, w2 = small_arrays()
    state = {}
    bias = np.zeros(len(w1))
    if failure == "read-only":
        bias.flags.writeable = False
    else:
        bias[0] = np.nan
    with pytest.raises((ValueError, FloatingPointError)):
        fit(x, y, w1, w2, bias, steps=3, momentum=0.9, state=state)
    assert state == {}


def test_states_that_share_memory_are_refused():
    x, y, w1, w2 = small_arrays()
    with pytest.raises(ValueError, match=r"w1 and state\['w1.momentum_buffer'\] share memory"):
        fit(x, y, w1, w2, steps=1, momentum=0.9, state={"w1.momentum_buffer": w1})
    both = np.zeros_like(w1)
    state = {"w1.exp_avg": both, "w1.exp_avg_sq": both}
    with pytest.raises(ValueError, match="share memory"):
        fit(x, y, w1, w2, steps=1, optimizer="adam", state=state)


def test_masked_arrays_are_refused():
    x, y, w1, w2 = small_arrays()
    with pytest.raises(TypeError, match=r"x must be a plain numpy.ndarray, got MaskedArray"):
        two_layer(np.ma.masked_array(x), w1, w2)
    with pytest.raises(TypeError, match=r"y must be a plain numpy.ndarray, got MaskedArray"):
        fit(x, np.ma.masked_array(y), w1, w2, steps=1)


def test_a_step_refuses_what_is_for_many():
    x, y, w1, w2 = small_arrays()
    with pytest.raises(TypeError, match="step: batch_size is nothing of one step's"):
        step(x, y, w1, w2, batch_size=3)
