"""What ``fit`` refuses, in which words, with nothing written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import lr_scheduler
from torch.utils.flop_counter import FlopCounterMode

from twolayer_kernels import FusedTwoLayer, fit

from .training import (
    assert_untouched,
    weights,
)

X, Y = torch.ones(6, 3), torch.ones(6, 2)
CLS = torch.tensor([0, 1, 0, 1, 0, 1])


def net():
    torch.manual_seed(0)
    return FusedTwoLayer(3, 4, 2)


def with_hook(model):
    model.linear1.register_forward_hook(lambda *_: None)
    return model


def with_subclass(model):
    class Special(nn.Linear):
        pass

    model.linear2 = Special(4, 2)
    return model


REFUSED = {
    "rows": (ValueError, "as many rows, got 6 and 5", {"y": Y[:5]}),
    "width-of-y": (ValueError, "out_features = 2, got", {"y": torch.ones(6, 3)}),
    "flat-y": (ValueError, "out_features = 2, got", {"y": torch.ones(6)}),
    "width-of-x": (ValueError, "in_features = 3, got", {"x": torch.ones(6, 4)}),
    "flat-x": (ValueError, "in_features = 3, got", {"x": torch.ones(6)}),
    "no-samples": (ValueError, "got none", {"x": X[:0], "y": Y[:0]}),
    "dtype-of-x": (TypeError, "dtype torch.float32, got torch.float64", {"x": X.double()}),
    "dtype-of-array": (TypeError, "torch.float32, got float64", {"x": np.ones((6, 3))}),
    "swapped-bytes": (TypeError, "got >f4", {"x": np.ones((6, 3), ">f4")}),
    "kind-of-x": (TypeError, "got list", {"x": [[1.0, 2.0, 3.0]]}),
    "y-missing": (TypeError, "y must be", {"y": None}),
    "sparse": (ValueError, "strided", {"x": X.to_sparse()}),
    "class-out-of-range": (
        ValueError,
        "classes from 0 to 1, got 7 in row 2",
        {"y": torch.tensor([0, 1, 7, 9, 0, 1]), "loss": "cross_entropy"},
    ),
    "class-dtype": (TypeError, "int64", {"y": Y, "loss": "cross_entropy"}),
    "class-shape": (ValueError, r"\(samples,\)", {"y": CLS[:, None], "loss": "cross_entropy"}),
    "unknown-loss": (ValueError, "mse_sum, mse_mean, cross_entropy", {"loss": "hinge"}),
    "other-loss": (TypeError, "write the loop", {"loss": nn.L1Loss()}),
    "unreduced": (NotImplementedError, "reduction", {"loss": nn.MSELoss(reduction="none")}),
    "class-weights": (
        ValueError,
        "one for each output",
        {"y": CLS, "loss": nn.CrossEntropyLoss(weight=torch.ones(3))},
    ),
    "unknown-optimizer": (ValueError, "sgd, adam, adamw, rmsprop", {"optimizer": "lion"}),
    "kind-of-optimizer": (TypeError, "torch.optim", {"optimizer": torch.optim.Adam}),
    "unknown-option": (TypeError, "betas", {"betas": (0.9, 0.9)}),
    "bad-option": (ValueError, "momentum", {"momentum": -1.0}),
    "steps-and-epochs": (ValueError, "one of steps and epochs", {"epochs": 2}),
    "neither": (ValueError, "one of steps and epochs", {"steps": None}),
    "no-steps": (ValueError, "steps must be >= 1, got 0", {"steps": 0}),
    "negative-epochs": (ValueError, "epochs must be >= 1, got -1", {"steps": None, "epochs": -1}),
    "half-steps": (TypeError, "steps must be an int", {"steps": 1.5}),
    "batch-size": (ValueError, "batch_size must be >= 1", {"batch_size": 0}),
    "nan": (ValueError, "'stop' or 'continue'", {"nan": "ignore"}),
    "weights-of-samples": (ValueError, r"\(6,\), got \(5,\)", {"sample_weight": torch.ones(5)}),
    "schedule": (TypeError, "schedule must be", {"schedule": 0.1}),
    "schedule-per": (ValueError, "schedule_per", {"schedule_per": "batch"}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_nothing_written(case):
    error, words, changes = REFUSED[case]
    model = net()
    before = weights(model)
    arguments = {"x": X, "y": Y, "steps": 2, "lr": 0.1, **changes}
    with pytest.raises(error, match=words):
        fit(model, arguments.pop("x"), arguments.pop("y"), **arguments)
    assert_untouched(model, before)


def test_networks_that_are_none_are_refused():
    for model, error, words in (
        (nn.Linear(3, 2), TypeError, "got Linear"),
        ("model", TypeError, "got str"),
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), TypeError, "Tanh"),
        (with_hook(net()), NotImplementedError, "hooks.*write the loop"),
        (with_subclass(net()), NotImplementedError, "Special"),
        (FusedTwoLayer(3, 4, 2, device="meta"), NotImplementedError, "meta"),
    ):
        with pytest.raises(error, match=words):
            fit(model, X, Y, steps=1, lr=0.1)


def test_optimizers_of_others_are_refused():
    model = net()
    other = torch.optim.SGD(net().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="none of the model's parameters"):
        fit(model, X, Y, steps=1, optimizer=other)
    own = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="lr, momentum belong"):
        fit(model, X, Y, steps=1, optimizer=own, lr=0.1, momentum=0.9)
    with pytest.raises(NotImplementedError, match=r"got Adagrad.*write the loop"):
        fit(model, X, Y, steps=1, optimizer=torch.optim.Adagrad(model.parameters()))
    own.register_step_post_hook(lambda *_: None)
    with pytest.raises(NotImplementedError, match="step hooks"):
        fit(model, X, Y, steps=1, optimizer=own)
    schedule = lr_scheduler.StepLR(other, 1)
    with pytest.raises(ValueError, match="scheduler of the optimizer"):
        fit(model, X, Y, steps=1, lr=0.1, schedule=schedule)


def test_a_frozen_model_is_refused():
    model = net().requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        fit(model, X, Y, steps=1, lr=0.1)


def test_autocast_is_refused():
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(NotImplementedError, match="autocast"),
    ):
        fit(net(), X, Y, steps=1, lr=0.1)


def test_what_wants_to_see_operators_is_refused():
    with (
        FlopCounterMode(display=False),
        pytest.raises(NotImplementedError, match="write the loop"),
    ):
        fit(net(), X, Y, steps=1, lr=0.1)
    with FakeTensorMode(), pytest.raises(NotImplementedError, match="write the loop"):
        fit(net(), X, Y, steps=1, lr=0.1)
    model = net()
    nn.utils.parametrizations.weight_norm(model.linear1)
    with pytest.raises(NotImplementedError, match="parametrized"):
        fit(model, X, Y, steps=1, lr=0.1)
