"""How ``fit`` takes turns with torch: its optimizers and schedulers, and what fuse made."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from twolayer_kernels import fit, fuse

from .training import (
    CLASSES,
    OPTIMIZERS,
    assert_same_states,
    assert_untouched,
    distance,
    loop,
    make_pair,
    make_task,
    shuffled,
    weights,
)

EXACT = 1e-9


# ---- taking turns with torch ----


# The second is work for two threads, whose columns of w2 meet within lines.
SIZES = [{}, {"samples": 200, "widths": (40, 100, 5)}]


@pytest.mark.parametrize("size", SIZES, ids=["one-thread", "two-threads"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_two_halves_are_the_whole_to_the_bit(kind, size):
    name, options = OPTIMIZERS[kind]
    task = make_task("mse_mean", torch.float32, **size)
    whole, halves = make_pair(task)[0], make_pair(task)[0]
    of_whole, of_halves = (
        CLASSES[name](model.parameters(), **options) for model in (whole, halves)
    )
    wanted = fit(whole, task.x, task.y, steps=40, optimizer=of_whole, loss="mse_mean")
    found = [
        fit(halves, task.x, task.y, steps=20, optimizer=of_halves, loss="mse_mean")
        for _ in range(2)
    ]
    assert torch.equal(torch.cat(found), wanted)
    assert_untouched(halves, weights(whole))
    assert_same_states(of_halves, of_whole, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("batch_size", [None, 70], ids=["whole", "batches"])
@pytest.mark.parametrize("kind", ["sgd-momentum", "adam-amsgrad", "rmsprop-all"])
def test_steps_one_at_a_time_are_the_run_to_the_bit(kind, batch_size, dtype):
    """A run brings a network's parts where they are trained fastest; a step leaves them."""
    name, options = OPTIMIZERS[kind]
    task = make_task("cross_entropy", dtype, samples=210, widths=(40, 100, 5))
    whole, single = make_pair(task)[0], make_pair(task)[0]
    of_whole, of_single = (
        CLASSES[name](model.parameters(), **options) for model in (whole, single)
    )
    loss, size = "cross_entropy", batch_size or len(task.x)
    wanted = fit(
        whole, task.x, task.y, steps=12, optimizer=of_whole, loss=loss,
        batch_size=batch_size, shuffle=False,
    )  # fmt: skip
    batches = list(zip(task.x.split(size), task.y.split(size), strict=True)) * 12
    found = [fit(single, x, y, steps=1, optimizer=of_single, loss=loss) for x, y in batches[:12]]
    assert torch.equal(torch.cat(found), wanted)
    assert_untouched(single, weights(whole))
    assert_same_states(of_single, of_whole, 0)


@pytest.mark.parametrize("kind", ["sgd-momentum", "adam-amsgrad", "rmsprop-all"])
def test_loop_fit_and_a_checkpoint_take_turns(kind):
    name, options = OPTIMIZERS[kind]
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    reference = CLASSES[name](plain.parameters(), **options)
    batches = [(task.x, task.y)]
    wanted = loop(plain, reference, task.loss, batches * 30)
    optimizer = CLASSES[name](ours.parameters(), **options)
    found = [loop(ours, optimizer, task.loss, batches * 10)]
    found.append(fit(ours, task.x, task.y, steps=10, optimizer=optimizer, loss="mse_mean"))
    saved = optimizer.state_dict()
    optimizer = CLASSES[name](ours.parameters(), lr=123.0)
    optimizer.load_state_dict(saved)
    found.append(loop(ours, optimizer, task.loss, batches * 5))
    found.append(fit(ours, task.x, task.y, steps=5, optimizer=optimizer, loss="mse_mean"))
    torch.testing.assert_close(torch.cat(found), wanted, rtol=EXACT, atol=0)
    assert_same_states(optimizer, reference, 1e-8)


def test_parameters_keep_their_identity_and_raise_their_versions():
    task = make_task("mse_mean")
    model, _ = make_pair(task)
    before = [(id(p), p.data_ptr(), p._version) for p in model.parameters()]
    fit(model, task.x, task.y, steps=3, lr=0.1)
    for (identity, address, version), p in zip(before, model.parameters(), strict=True):
        assert (id(p), p.data_ptr()) == (identity, address)
        assert p._version > version
        assert p.grad is None


def test_a_graph_over_old_values_is_refused_by_torch():
    task = make_task("mse_mean")
    model, _ = make_pair(task)
    loss = model(task.x).sum()
    fit(model, task.x, task.y, steps=1, lr=0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---- schedules ----

SCHEDULERS = {
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 17),
    "one-cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=400),
    "sequence": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer, 0.1), lr_scheduler.ExponentialLR(optimizer, 0.99)],
        [20],
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("kind", ["sgd-momentum", "adam"])
def test_a_scheduler_by_step(kind, name):
    optimizer, options = OPTIMIZERS[kind]
    task = make_task("mse_mean")
    models = make_pair(task)
    optimizers = [CLASSES[optimizer](model.parameters(), **options) for model in models]
    schedules = [SCHEDULERS[name](optimizer) for optimizer in optimizers]
    batches = [(task.x, task.y)] * 300
    wanted = loop(models[1], optimizers[1], task.loss, batches, lambda step: schedules[1].step())
    found = fit(
        models[0],
        task.x,
        task.y,
        steps=300,
        optimizer=optimizers[0],
        loss="mse_mean",
        schedule=schedules[0],
    )
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=0)
    assert schedules[0].state_dict().keys() == schedules[1].state_dict().keys()
    assert schedules[0].last_epoch == schedules[1].last_epoch
    assert schedules[0].get_last_lr() == schedules[1].get_last_lr()


@pytest.mark.parametrize("plateau", [False, True])
def test_a_scheduler_by_epoch(plateau):
    task = make_task("mse_mean")
    models = make_pair(task)
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.05) for model in models]
    make = (
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0))
        if plateau
        else (lambda o: lr_scheduler.StepLR(o, 2, 0.5))
    )
    schedules = [make(optimizer) for optimizer in optimizers]
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    wanted = []
    for _ in range(8):
        losses = loop(models[1], optimizers[1], task.loss, shuffled(task, 1, 15, generators[0]))
        schedules[1].step(*([float(losses.mean())] if plateau else []))
        wanted.append(losses)
    found = fit(
        models[0],
        task.x,
        task.y,
        epochs=8,
        batch_size=15,
        generator=generators[1],
        optimizer=optimizers[0],
        loss="mse_mean",
        schedule=schedules[0],
        schedule_per="epoch",
    )
    torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-8, atol=0)
    assert [g["lr"] for g in optimizers[0].param_groups] == [
        g["lr"] for g in optimizers[1].param_groups
    ]


def test_a_function_of_the_step():
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)

    def change(step):
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 2)

    wanted = loop(plain, optimizer, task.loss, [(task.x, task.y)] * 20, change)
    found = fit(
        ours, task.x, task.y, steps=20, loss="mse_mean", schedule=lambda step: 0.1 / (step + 1)
    )
    torch.testing.assert_close(found, wanted, rtol=EXACT, atol=0)


def _stops_at(step):
    if step == 7:
        raise ZeroDivisionError("no rate for step 7")
    return 0.9**step


@pytest.mark.parametrize("batch_size", [None, 15])
def test_a_scheduler_that_raises_keeps_the_steps_before_it(batch_size):
    task = make_task("mse_mean")
    models = make_pair(task)
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.05) for model in models]
    schedules = [lr_scheduler.LambdaLR(optimizer, _stops_at) for optimizer in optimizers]
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    batches = [(task.x, task.y)] * 20
    if batch_size:
        batches = shuffled(task, 7, batch_size, generators[1])
    with pytest.raises(ZeroDivisionError, match="no rate for step 7"):
        loop(models[1], optimizers[1], task.loss, batches, lambda step: schedules[1].step())
    with pytest.raises(ZeroDivisionError, match="no rate for step 7") as caught:
        fit(
            models[0],
            task.x,
            task.y,
            steps=20,
            batch_size=batch_size,
            generator=generators[0],
            optimizer=optimizers[0],
            loss="mse_mean",
            schedule=schedules[0],
        )
    assert len(caught.value.losses) == 7
    assert distance(*models) < EXACT
    assert_same_states(*optimizers, 1e-8)
    assert schedules[0].last_epoch == schedules[1].last_epoch == 7
    assert optimizers[0].param_groups[0]["lr"] == optimizers[1].param_groups[0]["lr"]


def test_a_function_that_raises_keeps_the_steps_before_it():
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0)

    def change(step):
        optimizer.param_groups[0]["lr"] = _stops_at(step + 1)

    with pytest.raises(ZeroDivisionError):
        loop(plain, optimizer, task.loss, [(task.x, task.y)] * 20, change)
    with pytest.raises(ZeroDivisionError, match="step 7") as caught:
        fit(ours, task.x, task.y, steps=20, loss="mse_mean", schedule=_stops_at)
    assert len(caught.value.losses) == 7
    assert distance(ours, plain) < EXACT


def test_the_count_of_steps_is_exact_whatever_the_default_dtype():
    task = make_task("mse_mean", torch.float32)
    model = make_pair(task)[0]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    torch.set_default_dtype(torch.bfloat16)
    try:
        fit(model, task.x, task.y, steps=301, optimizer=optimizer, loss="mse_mean")
    finally:
        torch.set_default_dtype(torch.float32)
    step = optimizer.state[model.linear1.weight]["step"]
    assert step.dtype == torch.float32
    assert step == 301


def test_a_scheduler_after_fit_does_not_warn(recwarn):
    task = make_task("mse_mean")
    model = make_pair(task)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule = lr_scheduler.StepLR(optimizer, 1)
    fit(model, task.x, task.y, steps=1, optimizer=optimizer, loss="mse_mean")
    schedule.step()
    assert not recwarn.list


def test_a_rate_that_is_a_tensor_is_put_back_where_fewer_steps_are_taken():
    task = make_task("mse_mean")
    task.x[25] = torch.nan
    rates = []
    for rate in (0.1, torch.tensor(0.1)):
        model = make_pair(task)[0]
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        schedule = lr_scheduler.ExponentialLR(optimizer, 0.9)
        with pytest.raises(FloatingPointError, match="step 2"):
            fit(
                model,
                task.x,
                task.y,
                epochs=10,
                batch_size=10,
                shuffle=False,
                optimizer=optimizer,
                schedule=schedule,
                loss="mse_mean",
            )
        rates.append(float(optimizer.param_groups[0]["lr"]))
    assert rates[0] == pytest.approx(rates[1])
    assert rates[0] == pytest.approx(0.081)


def test_a_scheduler_that_turns_momentum_on_is_refused():
    class WarmUp(lr_scheduler.LRScheduler):
        def get_lr(self):
            for group in self.optimizer.param_groups:
                group["momentum"] = 0.0 if self.last_epoch < 3 else 0.9
            return [group["lr"] for group in self.optimizer.param_groups]

    task = make_task("mse_mean")
    model = make_pair(task)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule, before = WarmUp(optimizer), weights(model)
    with pytest.raises(NotImplementedError, match="turns momentum on or off"):
        fit(model, task.x, task.y, steps=9, optimizer=optimizer, schedule=schedule, loss=task.loss)
    assert_untouched(model, before)
    assert optimizer.param_groups[0]["momentum"] == 0


@pytest.mark.parametrize("kind", ["sgd-momentum", "adam", "adamw", "rmsprop-momentum"])
def test_an_infinite_bias_stays_that_and_closes_its_unit(kind):
    name, options = OPTIMIZERS[kind]
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    for model in (ours, plain):
        model.linear1.bias.data[0] = -torch.inf
    optimizers = [
        CLASSES[name](model.parameters(), **options, weight_decay=0) for model in (ours, plain)
    ]
    wanted = loop(plain, optimizers[1], task.loss, [(task.x, task.y)] * 5)
    found = fit(ours, task.x, task.y, steps=5, optimizer=optimizers[0], loss=task.loss)
    torch.testing.assert_close(found, wanted, rtol=EXACT, atol=0)
    assert ours.linear1.bias[0] == -torch.inf


def test_the_penalty_of_a_frozen_weight_follows_it():
    task = make_task("mse_mean")
    model = make_pair(task)[0]
    model.linear1.weight.requires_grad_(False)
    penalties = []

    def grow(step, losses):
        with torch.no_grad():
            penalties.append(float(model.linear1.weight.square().sum()))
            model.linear1.weight.mul_(2)

    plain = make_pair(task)[0]
    plain.linear1.weight.requires_grad_(False)
    losses = fit(
        model, task.x, task.y, steps=2, lr=0.0, loss="mse_mean", l2_penalty=0.5,
        callback=grow, callback_every=1,
    )  # fmt: skip
    for factor, loss in zip((1, 2), losses, strict=True):
        with torch.no_grad():
            plain.linear1.weight.copy_(factor * make_pair(task)[0].linear1.weight)
            squares = plain.linear1.weight.square().sum() + plain.linear2.weight.square().sum()
            wanted = task.loss(plain(task.x), task.y) + 0.25 * squares
        assert float(loss) == pytest.approx(float(wanted), rel=1e-9)


def test_amsgrad_keeps_a_nan_as_the_loop_does():
    task = make_task("mse_mean", samples=12)
    task.x[5] = torch.nan
    ours, plain = make_pair(task)
    optimizers = [
        torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True) for model in (ours, plain)
    ]
    batches = [(task.x[i : i + 4], task.y[i : i + 4]) for i in (0, 4, 8)]
    loop(plain, optimizers[1], task.loss, batches)
    fit(
        ours, task.x, task.y, epochs=1, batch_size=4, shuffle=False, nan="continue",
        optimizer=optimizers[0], loss="mse_mean",
    )  # fmt: skip
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        found, wanted = (
            o.state[r]["max_exp_avg_sq"] for o, r in zip(optimizers, (p, q), strict=True)
        )
        assert torch.equal(found.isnan(), wanted.isnan())


def test_a_fused_sequential_is_trained():
    task = make_task("mse_mean")
    torch.manual_seed(1)
    kinds = (nn.Linear(7, 13), nn.ReLU(), nn.Linear(13, 5))
    model = nn.Sequential(*kinds).double()
    fuse(model)
    before = nn.functional.mse_loss(model(task.x), task.y).item()
    losses = fit(model, task.x, task.y, steps=10, lr=0.1, loss="mse_mean")
    assert losses[0].item() == pytest.approx(before)
    after = nn.functional.mse_loss(model(task.x), task.y).item()
    assert after < losses[-1].item() < before
