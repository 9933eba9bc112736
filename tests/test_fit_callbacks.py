"""What a callback or a scheduler changes while ``fit`` runs: as in the plain loop."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from twolayer_kernels import fit

from .training import (
    CLASSES,
    assert_same_states,
    assert_untouched,
    loop,
    make_pair,
    make_task,
    shuffled,
    weights,
)

EXACT = 1e-9


def set_option(**options):
    def change(model, optimizer):
        for group in optimizer.param_groups:
            group.update(options)

    return change


def freeze(model, optimizer):
    model.linear1.weight.requires_grad_(False)
    model.linear1.weight.grad = None


def thaw(model, optimizer):
    model.linear2.weight.requires_grad_(True)


def other_memory(model, optimizer):
    model.linear1.weight.data = 0.5 * model.linear1.weight.data


def other_order(model, optimizer):
    model.linear2.weight.data = model.linear2.weight.data.T.contiguous().T


def strided(model, optimizer):
    wide = model.linear1.weight.data.repeat_interleave(2, dim=1)
    model.linear1.weight.data = wide[:, ::2]


def by_half(model, optimizer):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5)


def other_state(model, optimizer):
    saved = copy.deepcopy(optimizer.state_dict())
    for state in saved["state"].values():
        for name, value in state.items():
            if name != "step" and value is not None:
                value.mul_(0.25)
    optimizer.load_state_dict(saved)


def no_state(model, optimizer):
    optimizer.state.clear()


def other_step(model, optimizer):
    for state in optimizer.state.values():
        if "step" in state:
            state["step"].fill_(1)


def own_rate(model, optimizer):
    """The second layer's bias gets a group of its own."""
    bias = model.linear2.bias
    first = optimizer.param_groups[0]
    if len(optimizer.param_groups) > 1:
        return
    first["params"] = [p for p in first["params"] if p is not bias]
    optimizer.add_param_group({"params": [bias], "lr": 0.0})


CHANGES = {
    "sgd": [
        set_option(weight_decay=0.3),
        set_option(momentum=0.9),
        set_option(momentum=0.9, nesterov=True),
        set_option(maximize=True),
        freeze,
        thaw,
        other_memory,
        other_order,
        strided,
        by_half,
        own_rate,
    ],
    "sgd-momentum": [
        set_option(momentum=0.0),
        set_option(momentum=0.5, dampening=0.2),
        other_state,
        no_state,
        other_order,
        freeze,
    ],
    "adam": [
        set_option(weight_decay=0.3),
        set_option(betas=(0.5, 0.9), eps=1e-3),
        set_option(lr=0.001),
        other_state,
        no_state,
        other_step,
        other_memory,
        strided,
        freeze,
        thaw,
        own_rate,
    ],
    "rmsprop": [
        set_option(alpha=0.5),
        set_option(eps=0.1, weight_decay=0.1),
        no_state,
        other_step,
    ],
}
OPTIONS = {
    "sgd": ("sgd", {"lr": 0.05}),
    "sgd-momentum": ("sgd", {"lr": 0.02, "momentum": 0.9}),
    "adam": ("adam", {"lr": 0.01}),
    "rmsprop": ("rmsprop", {"lr": 0.005}),
}


def assert_changed_as_in_the_loop(change, task, pair, optimizers):
    """``change(model, optimizer)`` after every fourth of 12 steps; the losses are the loop's."""
    ours, plain = pair

    def after(step):
        if (step + 1) % 4 == 0:
            change(plain, optimizers[1])

    wanted = loop(plain, optimizers[1], task.loss, [(task.x, task.y)] * 12, after)
    found = fit(
        ours,
        task.x,
        task.y,
        steps=12,
        optimizer=optimizers[0],
        loss="mse_mean",
        callback=lambda step, losses: change(ours, optimizers[0]),
        callback_every=4,
    )
    torch.testing.assert_close(found, wanted, rtol=EXACT, atol=0)


@pytest.mark.parametrize("frozen", ["", "linear2.weight"])
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        pytest.param(kind, change, id=f"{kind}-{i}-{change.__name__}")
        for kind, changes in CHANGES.items()
        for i, change in enumerate(changes)
    ],
)
def test_a_callback_changes_what_the_plain_loop_would_see(kind, change, frozen):
    name, options = OPTIONS[kind]
    task = make_task("mse_mean")
    pair = make_pair(task)
    for model in pair:
        if frozen:
            model.get_parameter(frozen).requires_grad_(False)
    optimizers = [CLASSES[name](model.parameters(), **options) for model in pair]

    assert_changed_as_in_the_loop(change, task, pair, optimizers)
    for p, q in zip(*(model.parameters() for model in pair), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-12)
    if change is not no_state:  # which empties the last step's, too
        assert_same_states(*optimizers, 1e-8)


def test_a_callback_may_replace_a_layer():
    task = make_task("mse_mean")
    pair = make_pair(task)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05) for model in pair]

    def replace(model, optimizer):
        torch.manual_seed(7)
        layer = nn.Linear(13, 5, dtype=torch.float64)
        optimizer.param_groups[0]["params"][2:] = list(layer.parameters())
        model.linear2.weight, model.linear2.bias = layer.weight, layer.bias

    assert_changed_as_in_the_loop(replace, task, pair, optimizers)


@pytest.mark.parametrize("change", ["width", "dtype"])
def test_a_network_that_becomes_another_kind_is_refused(change):
    task = make_task("mse_mean")
    model = make_pair(task)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def replace(step, losses):
        if change == "dtype":
            model.float()
        else:
            model.linear2.weight = nn.Parameter(torch.randn(6, 13, dtype=torch.float64))
            optimizer.param_groups[0]["params"].append(model.linear2.weight)

    with pytest.raises(NotImplementedError, match="was 7 x 13 x 5 in") as caught:
        fit(
            model,
            task.x,
            task.y,
            steps=8,
            optimizer=optimizer,
            loss="mse_mean",
            callback=replace,
            callback_every=4,
        )
    assert len(caught.value.losses) == 4


def test_what_fit_refuses_is_refused_when_a_callback_brings_it():
    task = make_task("mse_mean")
    model, plain = make_pair(task)
    wanted = loop(
        plain,
        torch.optim.SGD(plain.parameters(), lr=0.05),
        task.loss,
        [(task.x, task.y)] * 4,
    )

    def watch(step, losses):
        model.linear1.register_forward_hook(lambda *args: None)

    with pytest.raises(NotImplementedError, match="hook") as caught:
        fit(
            model,
            task.x,
            task.y,
            steps=8,
            lr=0.05,
            loss="mse_mean",
            callback=watch,
            callback_every=4,
        )
    torch.testing.assert_close(caught.value.losses, wanted, rtol=EXACT, atol=0)
    model.linear1._forward_hooks.clear()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-12)


def test_callbacks_see_the_model_as_it_is_and_may_stop():
    task = make_task("mse_mean")
    model, plain = make_pair(task)
    wanted = loop(
        plain, torch.optim.SGD(plain.parameters(), lr=0.1), task.loss, [(task.x, task.y)] * 30
    )
    calls = []

    def callback(step, losses):
        calls.append((step, len(losses)))
        value = nn.functional.mse_loss(model(task.x), task.y).item()
        assert value == pytest.approx(float(wanted[step]), rel=1e-9)
        return step == 20

    found = fit(
        model,
        task.x,
        task.y,
        steps=29,
        lr=0.1,
        loss="mse_mean",
        callback=callback,
        callback_every=5,
    )
    assert calls == [(5, 5), (10, 10), (15, 15), (20, 20)]
    assert len(found) == 20


def test_callbacks_come_once_an_epoch_and_at_the_end():
    task = make_task("mse_mean")
    steps = []
    fit(
        make_pair(task)[0],
        task.x,
        task.y,
        epochs=3,
        batch_size=16,
        lr=0.001,
        callback=lambda step, losses: steps.append(step),
    )
    assert steps == [3, 6, 9]
    steps.clear()
    fit(
        make_pair(task)[0],
        task.x,
        task.y,
        steps=5,
        lr=0.001,
        callback=lambda step, losses: steps.append(step),
        callback_every=2,
    )
    assert steps == [2, 4, 5]


def test_a_callback_may_change_the_learning_rate_and_the_weights():
    task = make_task("mse_mean")
    pair = make_pair(task)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in pair]

    def change(model, optimizer):
        optimizer.param_groups[0]["lr"] *= 0.5
        with torch.no_grad():
            model.linear2.bias.fill_(0.25)

    assert_changed_as_in_the_loop(change, task, pair, optimizers)


@pytest.mark.parametrize("by_scheduler", [False, True])
def test_what_a_callback_raises_leaves_the_last_whole_step(by_scheduler):
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.01) for model in (ours, plain)]
    schedules = [lr_scheduler.ExponentialLR(optimizer, 0.9) for optimizer in optimizers]
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    batches = shuffled(task, 2, 10, generators[0])[:6]
    after = (lambda step: schedules[1].step()) if by_scheduler else (lambda step: None)
    wanted = loop(plain, optimizers[1], task.loss, batches, after)

    def callback(step, losses):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full") as caught:
        fit(
            ours,
            task.x,
            task.y,
            epochs=9,
            batch_size=10,
            generator=generators[1],
            optimizer=optimizers[0],
            loss="mse_mean",
            schedule=schedules[0] if by_scheduler else None,
            callback=callback,
            callback_every=6,
        )
    torch.testing.assert_close(caught.value.losses, wanted, rtol=EXACT, atol=0)
    assert_same_states(*optimizers, 1e-8)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
    assert schedules[0].last_epoch == schedules[1].last_epoch


@pytest.mark.parametrize("cls", [7, -5, 10**11])
@pytest.mark.parametrize("weighted", [True, False])
def test_classes_that_a_callback_spoils_end_the_run(cls, weighted):
    task = make_task("cross_entropy")
    y = task.y.clone()
    model = make_pair(task)[0]
    loss = nn.CrossEntropyLoss(torch.ones(5).double() if weighted else None)

    def spoil(step, losses):
        y[3] = cls

    with pytest.raises(IndexError, match=r"y\[3\] is no class") as caught:
        fit(model, task.x, y, steps=6, lr=0.1, loss=loss, callback=spoil, callback_every=2)
    assert len(caught.value.losses) == 2


class Decaying(lr_scheduler.LRScheduler):
    """Changes more than torch's own schedulers do."""

    def get_lr(self):
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.01 * self.last_epoch
        return [group["lr"] for group in self.optimizer.param_groups]


def test_a_scheduler_may_change_any_option_between_epochs():
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.05) for model in (ours, plain)]
    schedules = [Decaying(optimizer) for optimizer in optimizers]
    wanted = loop(
        plain,
        optimizers[1],
        task.loss,
        [(task.x, task.y)] * 6,
        lambda step: schedules[1].step(),
    )
    found = fit(
        ours,
        task.x,
        task.y,
        epochs=6,
        shuffle=False,
        optimizer=optimizers[0],
        loss="mse_mean",
        schedule=schedules[0],
        schedule_per="epoch",
    )
    torch.testing.assert_close(found, wanted, rtol=EXACT, atol=0)


def test_a_scheduler_that_changes_other_options_each_step_is_refused():
    task = make_task("mse_mean")
    model = make_pair(task)[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    schedule = Decaying(optimizer)
    before, groups = weights(model), copy.deepcopy(optimizer.state_dict()["param_groups"])
    with pytest.raises(NotImplementedError, match=r"weight_decay.*schedule_per='epoch'"):
        fit(
            model,
            task.x,
            task.y,
            steps=6,
            optimizer=optimizer,
            loss="mse_mean",
            schedule=schedule,
        )
    assert_untouched(model, before)
    assert optimizer.state_dict()["param_groups"] == groups
    assert schedule.last_epoch == 0
