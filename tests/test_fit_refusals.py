"""What ``fit`` refuses, in which words, with nothing written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook
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


def with_hook_on_a_gradient(model):
    model.linear1.weight.register_hook(lambda grad: 0 * grad)
    return model


def with_hook_after_accumulation(model):
    model.linear2.bias.register_post_accumulate_grad_hook(lambda p: None)
    return model


def with_shared_memory(model):
    flat = torch.randn(20)
    model.linear1.weight = nn.Parameter(flat[:12].view(4, 3))
    model.linear2.weight = nn.Parameter(flat[8:16].view(2, 4))
    return model


def with_interleaved_weights(model):
    """Ranges that cross without an element in common; here they have some, a row further on."""
    flat = torch.randn(40)
    model.linear1.weight = nn.Parameter(flat[:24:2].view(4, 3))
    model.linear2.weight = nn.Parameter(flat[4:20:2].view(2, 4))
    return model


def with_expanded_weight(model):
    model.linear1.weight = nn.Parameter(torch.randn(3).expand(4, 3))
    return model


def with_weight_over_itself(model):
    model.linear1.weight = nn.Parameter(torch.randn(20).as_strided((4, 3), (2, 1)))
    return model


def with_weight_of_inference(model):
    with torch.inference_mode():
        model.linear1.weight = nn.Parameter(torch.randn(4, 3))
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
    "nested": (ValueError, "nested", {"x": torch.nested.nested_tensor([X], layout=torch.jagged)}),
    "classes-on-meta": (ValueError, "on meta", {"y": CLS.to("meta"), "loss": "cross_entropy"}),
    "sparse-weights": (ValueError, "strided", {"sample_weight": torch.ones(6).to_sparse()}),
    "complex-weights": (TypeError, "must be real", {"sample_weight": np.ones(6, complex)}),
    "callback": (TypeError, "callback must be callable, got int", {"callback": 3}),
    "generator": (TypeError, "must be a torch.Generator, got int", {"generator": 3}),
    "penalty": (TypeError, "l2_penalty must be a number, got 'a'", {"l2_penalty": "a"}),
    "penalty-nan": (ValueError, "l2_penalty must be finite", {"l2_penalty": float("nan")}),
    "smoothing": (
        ValueError,
        "label_smoothing must be from 0 to 1, got 2",
        {"y": CLS, "loss": nn.CrossEntropyLoss(label_smoothing=2.0)},
    ),
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
        (with_hook_on_a_gradient(net()), NotImplementedError, "linear1.weight has hooks"),
        (with_hook_after_accumulation(net()), NotImplementedError, "linear2.bias has hooks"),
        (with_shared_memory(net()), NotImplementedError, "linear1.weight and linear2.weight share"),
        (with_interleaved_weights(net()), NotImplementedError, "share memory"),
        (with_expanded_weight(net()), NotImplementedError, "linear1.weight holds an element twice"),
        (with_weight_over_itself(net()), NotImplementedError, "holds an element twice"),
        (with_weight_of_inference(net()), NotImplementedError, "made in inference mode"),
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
    patched = torch.optim.SGD(model.parameters(), lr=0.1)
    patched.step = lambda: None
    with pytest.raises(NotImplementedError, match="a step of its own"):
        fit(model, X, Y, steps=1, optimizer=patched)
    everywhere = register_optimizer_step_post_hook(lambda *_: None)
    try:
        with pytest.raises(NotImplementedError, match="step hooks"):
            fit(model, X, Y, steps=1, lr=0.1)
    finally:
        everywhere.remove()
    schedule = lr_scheduler.StepLR(other, 1)
    with pytest.raises(ValueError, match="scheduler of the optimizer"):
        fit(model, X, Y, steps=1, lr=0.1, schedule=schedule)


@pytest.mark.parametrize("how", ["hook", "forward"])
def test_losses_that_do_more_are_refused(how):
    loss = nn.MSELoss()
    if how == "hook":
        loss.register_forward_hook(lambda module, args, output: 2 * output)
    else:
        loss.forward = lambda y, target: (y - target).abs().sum()
    with pytest.raises(NotImplementedError, match="loss has hooks or a forward of its own"):
        fit(net(), X, Y, steps=1, lr=0.1, loss=loss)


def test_data_in_the_weights_memory_are_refused():
    model = net()
    weight = model.linear1.weight.detach()
    for x, y, others, what in (
        (weight, torch.ones(4, 2), {}, "x shares memory with linear1.weight"),
        (weight.numpy(), torch.ones(4, 2), {}, "x shares memory with linear1.weight"),
        (torch.ones(4, 3), model.linear2.weight.detach().T, {}, "y shares memory with linear2"),
        (torch.ones(4, 3), torch.ones(4, 2), {"sample_weight": weight[:, 0]}, "sample_weight"),
    ):
        with pytest.raises(NotImplementedError, match=what):
            fit(model, x, y, steps=1, lr=0.1, **others)


def test_weights_that_lie_between_each_other_are_trained():
    wide = torch.randn(4, 5)
    model = FusedTwoLayer(3, 4, 2, bias=False)
    model.linear1.weight = nn.Parameter(wide[:, :3])
    model.linear2.weight = nn.Parameter(wide[:, 3:].T)
    before = wide.clone()
    fit(model, X, Y, steps=1, lr=0.1)
    assert not torch.equal(wide[:, :3], before[:, :3])
    assert not torch.equal(wide[:, 3:], before[:, 3:])


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


def test_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(NotImplementedError, match="inference_mode"):
        fit(net(), X, Y, steps=1, lr=0.1)


def test_a_half_precision_model_wants_data_of_its_own():
    with pytest.raises(TypeError, match="bfloat16, got float64"):
        fit(net().bfloat16(), X.double().numpy(), Y.bfloat16(), steps=1, lr=0.1)


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


@pytest.mark.parametrize(
    ("kind", "turned_on"),
    [
        (torch.optim.Adam, {"amsgrad": True}),
        (torch.optim.RMSprop, {"momentum": 0.9}),
        (torch.optim.RMSprop, {"centered": True}),
        (torch.optim.SGD, {"momentum": 0.9}),
    ],
)
def test_an_option_turned_on_without_its_state(kind, turned_on):
    """torch has a KeyError where a state is missing, but for SGD, which begins one."""

    def outcome(step):
        model = net()
        optimizer = kind(model.parameters(), lr=0.01)
        step(model, optimizer)
        optimizer.param_groups[0].update(turned_on)
        before = {name: tensor.clone() for name, tensor in weights(model).items()}
        try:
            step(model, optimizer)
        except KeyError as error:
            assert_untouched(model, before)
            return repr(error)
        return model.linear1.weight.detach()

    def plain(model, optimizer):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X), Y, reduction="sum").backward()
        optimizer.step()

    ours = outcome(lambda model, optimizer: fit(model, X, Y, steps=1, optimizer=optimizer))
    theirs = outcome(plain)
    assert type(ours) is type(theirs)
    if isinstance(theirs, str):
        assert ours == theirs
    else:
        torch.testing.assert_close(ours, theirs)
