"""The ladder: every rung within its budget, the tutorials' own figures, and planted faults found.

Docs of the measure, the budgets and the two pitfalls tested here: docs/ladder.md.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from twolayer_kernels.app.ladder import by_hand, with_modules
from twolayer_kernels.app.ladder.problem import IN_FEATURES, Problem
from twolayer_kernels.app.ladder.rungs import NAMES, RUNGS, check_chain, named
from twolayer_kernels.app.ladder.running import Outcome, Side, budget_for, distance, run
from twolayer_kernels.functional import linear_relu

from .commands import one_thread

BY_TITLE = {rung.title: rung for rung in RUNGS}
FLOAT64 = Problem(seed=0, dtype=torch.float64)
FLOAT32 = Problem(seed=0)
WITHOUT_FIT = ("tensors", "autograd", "columns", "function", "dynamic", "chain")


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def curve(make, problem, steps):
    step = make(problem)
    return np.array([step() for _ in range(steps)])


def sides(outcome):
    return [side for side in (outcome.plain, outcome.fused, outcome.fit) if side is not None]


def test_the_issue_names_every_rung():
    assert NAMES == (
        "numpy",
        "tensors",
        "autograd",
        "columns",
        "function",
        "sequential",
        "optim",
        "module",
        "dynamic",
        "chain",
    )


@pytest.mark.parametrize("title", BY_TITLE)
def test_float64_curves_are_the_same_but_for_rounding(title):
    outcome = run(BY_TITLE[title], FLOAT64, steps=150)
    assert outcome.problem is None
    for side in sides(outcome):
        assert len(side.losses) == 150
        if title != "chain":
            assert side.losses[-1] < side.losses[0]
        assert side.seconds > 0
    assert (outcome.fit is None) == (outcome.rung.name in WITHOUT_FIT)


@pytest.mark.parametrize("title", BY_TITLE)
def test_float32_curves_stay_within_budget(title):
    assert run(BY_TITLE[title], FLOAT32, steps=60).problem is None


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_the_fused_side_takes_the_backend_that_is_named(backend):
    outcome = run(BY_TITLE["module (bias)"], replace(FLOAT32, backend=backend), steps=5)
    assert outcome.problem is None


@pytest.mark.parametrize("seed", [0, 1])
def test_by_hand_the_loss_falls_as_the_tutorials_say(seed):
    losses = curve(partial(by_hand.numpy_fused, bias=False), Problem(seed), 401)
    assert 1e7 < losses[0] < 1e8
    assert losses[400] < 1e-2


def test_adam_falls_as_the_tutorials_say():
    losses = curve(BY_TITLE["optim (Adam)"].fused, FLOAT32, 451)
    assert 500 < losses[0] < 900
    assert losses[450] < 1e-6


def test_columns_copy_nothing(monkeypatch):
    """What the fused operation is given is the memory of X and of the weights, transposed."""
    given = []

    def spy(*arguments, **options):
        given.append(arguments)
        return real(*arguments, **options)

    real = by_hand.two_layer
    monkeypatch.setattr(by_hand, "two_layer", spy)
    step = by_hand.columns_fused(FLOAT32)
    step()
    step()
    for first, second in zip(*given, strict=True):
        assert first.data_ptr() == second.data_ptr()
        assert first.T.is_contiguous()


def test_weights_have_the_layout_of_torch_where_the_fused_side_keeps_them():
    assert FLOAT32.parameter(FLOAT32.weights().w1.T).is_contiguous()


def test_dynamic_sides_make_the_same_choices():
    plain = with_modules.DynamicNet(FLOAT32).choices
    fused = with_modules.FusedDynamicNet(FLOAT32).choices
    choices = [plain.randint(0, 3) for _ in range(40)]
    assert choices == [fused.randint(0, 3) for _ in range(40)]
    assert set(choices) == {0, 1, 2, 3}


def test_chain_has_the_gradients_of_the_tutorial():
    for fused in (False, True):
        step, gradients = by_hand.chain(FLOAT32, fused)
        assert step() == 5
        assert gradients() == (2, 1, 1)


def test_wrong_chain_gradients_are_named(monkeypatch):
    monkeypatch.setattr(by_hand, "linear_relu", lambda x, w, b, backend: 2 * linear_relu(x, w, b))
    assert check_chain(FLOAT32) == "fused gradients (4.0, 2.0, 2.0) instead of (2.0, 1.0, 1.0)"


# Budgets.


def scaled_rate(factor):
    """The tutorial by hand, its learning rate off by ``factor``."""

    def make(problem):
        rate = by_hand.LR
        try:
            by_hand.LR = rate * factor
            step = by_hand.numpy_plain(problem, bias=False)
        finally:
            by_hand.LR = rate

        def faulty():
            by_hand.LR = rate * factor
            try:
                return step()
            finally:
                by_hand.LR = rate

        return faulty

    return make


def never_trains(problem):
    step = by_hand.numpy_plain(problem, bias=False)
    first = step()
    return lambda: first


def not_a_number(problem):
    step = by_hand.numpy_plain(problem, bias=False)
    step()
    return lambda: float("nan")


@pytest.mark.parametrize(
    ("fault", "dtype"),
    [
        (scaled_rate(1 + 1e-2), torch.float32),
        (scaled_rate(1 + 1e-12), torch.float64),
        (never_trains, torch.float32),
        (not_a_number, torch.float32),
    ],
    ids=["a rate off by 1e-2", "off by 1e-12 in float64", "weights never change", "nan"],
)
def test_a_planted_fault_is_out_of_budget(fault, dtype):
    rung = replace(BY_TITLE["numpy (no bias)"], fused=fault)
    assert run(rung, Problem(0, dtype), steps=30).problem is not None


@pytest.mark.parametrize(
    "fit",
    [
        partial(by_hand.numpy_fit, bias=True),
        lambda problem: lambda steps: np.full(steps, np.nan),
    ],
    ids=["another network", "nan"],
)
def test_a_fault_in_the_side_of_fit_alone_is_out_of_budget(fit):
    rung = replace(BY_TITLE["numpy (no bias)"], fit=fit)
    outcome = run(rung, FLOAT32, steps=30)
    assert outcome.problem_of(outcome.fused) is None
    assert "of plain and fit" in outcome.problem


def test_a_diverging_fit_is_judged_and_does_not_stop_the_ladder(monkeypatch):
    monkeypatch.setattr(with_modules, "LR", 1e30)
    outcome = run(BY_TITLE["optim (SGD)"], FLOAT32, steps=10)
    assert outcome.problem is not None
    assert len(outcome.fit.losses) == 10


def test_fit_goes_on_from_block_to_block():
    for title in ("numpy (bias)", "optim (RMSprop)", "optim (momentum)"):
        rung = BY_TITLE[title]
        once, twice = rung.fit(FLOAT32)(20), rung.fit(FLOAT32)
        np.testing.assert_array_equal(once, np.concatenate([twice(10), twice(10)]))


def test_fit_has_no_side_on_another_device():
    assert BY_TITLE["module (bias)"].fit(replace(FLOAT32, device="meta")) is None


def test_a_bias_that_is_not_trained_is_out_of_budget():
    rung = replace(BY_TITLE["numpy (bias)"], fused=partial(by_hand.numpy_fused, bias=False))
    assert run(rung, FLOAT32, steps=2).problem is not None


@pytest.mark.parametrize("title", ["tensors", "sequential (bias)", "optim (Adam)"])
def test_two_right_runs_differ_as_the_budget_says(title):
    """Features in another order change the rounding alone: budgets allow it, with room."""
    order = np.random.default_rng(1).permutation(IN_FEATURES)
    rung = BY_TITLE[title]
    one = curve(rung.plain, FLOAT32, 10)
    other = curve(rung.plain, replace(FLOAT32, feature_order=order), 10)
    assert 0 < distance(one, other) < budget_for(rung, torch.float32).start / 5


def test_the_distance_is_relative_down_to_the_floor():
    one = np.array([1e6, 1e3, 1e-3])
    assert distance(one, one) == 0
    assert distance(one, one * [1, 1.01, 1]) == pytest.approx(0.01 / 1.01)
    assert distance(one, one * [1, 1, 2]) == pytest.approx(1e-5)  # of a floor of 100
    assert distance(one, np.array([1e6, np.nan, 1])) == float("inf")
    assert distance(np.zeros(3), np.zeros(3)) == 0


def test_an_infinite_budget_does_not_allow_a_loss_that_is_no_number():
    dynamic = BY_TITLE["dynamic"]
    losses, broken = np.ones(30), np.ones(30)
    broken[29] = np.nan
    budget = budget_for(dynamic, torch.float32)
    assert budget.whole == float("inf")
    plain, right, wrong = (Side("", of, 1) for of in (losses, losses, broken))
    assert Outcome(dynamic, plain, right, None, budget, None).problem is None
    assert Outcome(dynamic, plain, wrong, None, budget, None).problem is not None
    assert Outcome(dynamic, plain, right, wrong, budget, None).problem is not None


# Pitfalls.


def test_the_tutorials_relu_passes_the_gradient_at_zero_and_ours_does_not():
    h = torch.zeros(1, 1, requires_grad=True)
    by_hand.OwnReLU.apply(h).sum().backward()
    assert h.grad.item() == 1
    h.grad = None
    h.clamp(min=0).sum().backward()
    assert h.grad.item() == 1
    for relu in (torch.relu, lambda t: linear_relu(t, torch.ones(1, 1))):
        h.grad = None
        relu(h).sum().backward()
        assert h.grad.item() == 0


def test_a_weight_assigned_anew_is_no_leaf():
    w = torch.ones(2, requires_grad=True)
    w.square().sum().backward()
    w = w - 0.1 * w.grad
    assert not w.is_leaf
    w.square().sum().backward()
    with pytest.warns(UserWarning, match="not a leaf"):
        assert w.grad is None


def test_unknown_rungs_raise_a_value_error():
    assert [rung.title for rung in named(["optim"])] == [
        "optim (SGD)",
        "optim (momentum)",
        "optim (RMSprop)",
        "optim (Adam)",
    ]
    with pytest.raises(ValueError, match="got 'x'"):
        named(["x"])
