"""``fit`` walks the trajectory of the plain loop: all optimizers, losses, dtypes and layouts."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from twolayer_kernels import FusedTwoLayer, TwoLayerNet, fit

from .training import (
    CLASSES,
    LOSSES,
    OPTIMIZERS,
    assert_same_states,
    distance,
    loop,
    make_pair,
    make_task,
    shuffled,
)

STEPS = 60
EXACT = 1e-9


def relative(found, wanted):
    tiny = torch.finfo(wanted.dtype).tiny  # a softmax of one output loses nothing
    return float(((found - wanted).abs() / (wanted.abs() + tiny)).max())


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_float64_is_the_plain_loop(optimizer, loss, bias):
    task = make_task(loss)
    ours, plain = make_pair(task, bias)
    name, options = OPTIMIZERS[optimizer]
    if task.loss.reduction == "sum" and name == "sgd":
        options = {**options, "lr": options["lr"] / 50}
    reference = CLASSES[name](plain.parameters(), **options)
    theirs = CLASSES[name](ours.parameters(), **options)
    wanted = loop(plain, reference, task.loss, [(task.x, task.y)] * STEPS)
    found = fit(ours, task.x, task.y, steps=STEPS, optimizer=theirs, loss=task.loss)
    assert relative(found, wanted) < EXACT
    assert distance(ours, plain) < EXACT
    assert_same_states(theirs, reference, 1e-8)


# One loss stands for all with the 16-bit types.
DTYPES_AND_LOSSES = [
    (torch.float32, "mse_mean"),
    (torch.float32, "cross_entropy"),
    (torch.float32, "bce_with_logits"),
    (torch.bfloat16, "mse_mean"),
    (torch.float16, "mse_mean"),
]


@pytest.mark.parametrize(("dtype", "loss"), DTYPES_AND_LOSSES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_other_dtypes_are_as_close_to_float64_as_torch(optimizer, loss, dtype):
    exact_task = make_task(loss)
    task = make_task(loss, dtype)
    # Both from the same rounded numbers.
    exact_task = exact_task._replace(x=task.x.double())
    if task.y.is_floating_point():
        exact_task = exact_task._replace(y=task.y.double())
    ours, plain = make_pair(task)
    _, exact = make_pair(exact_task)
    exact.load_state_dict(plain.state_dict())
    name, options = OPTIMIZERS[optimizer]
    if dtype == torch.float16 and "eps" not in options and name != "sgd":
        options = {**options, "eps": 1e-4}  # 1e-8 is 0 in float16
    steps = STEPS if dtype == torch.float32 else 15
    batches = [(task.x, task.y)] * steps
    torch_losses = loop(plain, CLASSES[name](plain.parameters(), **options), task.loss, batches)
    exact_losses = loop(
        exact,
        CLASSES[name](exact.parameters(), **options),
        exact_task.loss,
        [(exact_task.x, exact_task.y)] * steps,
    )
    optimizer_of_ours = CLASSES[name](ours.parameters(), **options)
    losses = fit(ours, task.x, task.y, steps=steps, optimizer=optimizer_of_ours, loss=task.loss)
    # One rounding a step, of parameters and of losses.
    band = steps * torch.finfo(dtype).eps
    assert distance(ours, exact) <= 2 * distance(plain, exact) + band
    scale = exact_losses.abs().max()
    allowed = 2 * (torch_losses - exact_losses).abs().max() / scale + band
    assert (losses - exact_losses).abs().max() / scale <= allowed


SHAPES = [
    # samples, in, hidden, out
    (1, 1, 1, 1),
    (3, 2, 1, 2),
    (5, 1, 9, 1),
    (33, 17, 31, 3),
    (70, 40, 64, 33),
    (129, 65, 200, 2),
    (600, 12, 24, 4),
    (520, 9, 130, 130),
    (3000, 50, 17, 3),  # more than a thread packs for itself
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("loss", ["mse_mean", "cross_entropy-smooth", "bce_with_logits-weight"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_shapes_and_threads(shape, loss, threads):
    samples, *widths = shape
    task = make_task(loss, samples=samples, widths=tuple(widths))
    if loss == "cross_entropy-smooth":
        task.loss.ignore_index = -100  # else few classes leave nothing to count
    ours, plain = make_pair(task)
    options = {"lr": 1e-3}
    reference = torch.optim.Adam(plain.parameters(), **options)
    wanted = loop(plain, reference, task.loss, [(task.x, task.y)] * 8)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = fit(ours, task.x, task.y, steps=8, optimizer="adam", loss=task.loss, **options)
    finally:
        torch.set_num_threads(before)
    assert relative(found, wanted) < EXACT
    assert distance(ours, plain) < EXACT


@pytest.mark.parametrize("by_columns", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("batch_size", [80, 200])
@pytest.mark.parametrize("loss", ["mse_mean", "cross_entropy-weight"])
@pytest.mark.parametrize(
    "widths", [(60, 100, 6), (700, 40, 2), (20, 500, 1), (1500, 33, 5), (40, 90, 70)]
)
def test_mini_batches_on_two_threads(widths, loss, batch_size, by_columns):
    """Small enough that each thread packs them for itself or finds all losses, and larger ones."""
    task = make_task(loss, samples=450, widths=widths)
    if by_columns:
        task = task._replace(x=task.x.T.contiguous().T)
    ours, plain = make_pair(task)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    batches = shuffled(task, 3, batch_size, generators[0])
    wanted = loop(plain, torch.optim.Adam(plain.parameters()), task.loss, batches)
    options = {"optimizer": "adam", "batch_size": batch_size, "generator": generators[1]}
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = fit(ours, task.x, task.y, epochs=3, loss=task.loss, **options)
    finally:
        torch.set_num_threads(before)
    assert relative(found, wanted) < EXACT
    assert distance(ours, plain) < EXACT


@pytest.mark.parametrize("batch_size", [1, 7, 32, 40, 100])
@pytest.mark.parametrize("loss", ["mse_mean", "cross_entropy-smooth"])
def test_mini_batches_take_the_loops_order(loss, batch_size):
    task = make_task(loss, samples=61)
    ours, plain = make_pair(task)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    batches = shuffled(task, 3, batch_size, generators[0])
    if loss != "mse_mean":
        batches = [(x, torch.where(y == 1, 2, y)) for x, y in batches]
        task = task._replace(y=torch.where(task.y == 1, 2, task.y))
    wanted = loop(plain, torch.optim.Adam(plain.parameters()), task.loss, batches)
    found = fit(
        ours,
        task.x,
        task.y,
        epochs=3,
        optimizer="adam",
        loss=task.loss,
        batch_size=batch_size,
        generator=generators[1],
    )
    assert relative(found, wanted) < EXACT
    assert distance(ours, plain) < EXACT
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


@pytest.mark.parametrize("kind", ["adam", "sgd-nesterov", "rmsprop-all"])
def test_options_of_groups_are_kept_apart(kind):
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    name, options = OPTIMIZERS[kind]
    optimizers = []
    for model in (ours, plain):
        groups = [
            {"params": [model.linear1.weight, model.linear2.weight], "weight_decay": 0.1},
            {"params": [model.linear1.bias], "lr": 0.003},
            {"params": [model.linear2.bias]},
        ]
        optimizers.append(CLASSES[name](groups, **options))
    wanted = loop(plain, optimizers[1], task.loss, [(task.x, task.y)] * STEPS)
    found = fit(ours, task.x, task.y, steps=STEPS, optimizer=optimizers[0], loss=task.loss)
    assert relative(found, wanted) < EXACT
    assert_same_states(*optimizers, 1e-8)


@pytest.mark.parametrize(
    "frozen",
    [
        ("linear1.weight",),
        ("linear1.bias", "linear2.weight"),
        ("linear1.weight", "linear1.bias"),
        ("linear2.weight", "linear2.bias"),
        ("linear2.bias",),
    ],
    ids="+".join,
)
def test_frozen_parameters_stay(frozen):
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    for model in (ours, plain):
        for name in frozen:
            model.get_parameter(name).requires_grad_(False)
    before = {name: ours.get_parameter(name).clone() for name in frozen}
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.01) for model in (ours, plain)]
    wanted = loop(plain, optimizers[1], task.loss, [(task.x, task.y)] * 20)
    found = fit(ours, task.x, task.y, steps=20, optimizer=optimizers[0], loss=task.loss)
    assert relative(found, wanted) < EXACT
    assert distance(ours, plain) < EXACT
    for name, value in before.items():
        assert torch.equal(ours.get_parameter(name), value)
    assert_same_states(*optimizers, 1e-8)


def weighted(loss, y, target, weight):
    """The mean of samples' losses by their weights."""
    if isinstance(loss, nn.CrossEntropyLoss):
        own = nn.functional.cross_entropy(y, target, weight=loss.weight, reduction="none")
        divisor = weight if loss.weight is None else weight * loss.weight[target]
        return (weight * own).sum() / divisor.sum()
    own = type(loss)(reduction="none")(y, target)
    return (weight[:, None] * own).sum() / (weight.sum() * y.shape[1])


@pytest.mark.parametrize(
    "loss", ["mse_mean", "cross_entropy", "cross_entropy-weight", "bce_with_logits"]
)
@pytest.mark.parametrize(
    ("samples", "widths"),
    [(40, (7, 13, 5)), (200, (50, 100, 6))],
    ids=["one-thread", "two-threads"],
)
def test_sample_weights_and_penalty(loss, samples, widths):
    task = make_task(loss, samples=samples, widths=widths)
    ours, plain = make_pair(task)
    weight = torch.rand(len(task.x), dtype=task.dtype) + 0.1
    penalty = 0.05
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05)
    wanted = []
    for _ in range(20):
        squares = plain.linear1.weight.square().sum() + plain.linear2.weight.square().sum()
        value = weighted(task.loss, plain(task.x), task.y, weight) + penalty / 2 * squares
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        wanted.append(value.item())
    found = fit(
        ours,
        task.x,
        task.y,
        steps=20,
        lr=0.05,
        loss=task.loss,
        sample_weight=weight,
        l2_penalty=penalty,
    )
    assert relative(found, torch.tensor(wanted, dtype=torch.float64)) < EXACT
    assert distance(ours, plain) < EXACT


def test_the_penalty_of_frozen_weights_counts_in_the_loss():
    task = make_task("mse_mean")
    ours, _ = make_pair(task)
    ours.linear1.weight.requires_grad_(False)
    first = fit(ours, task.x, task.y, steps=1, lr=0.0, loss="mse_mean", l2_penalty=2.0)
    squares = ours.linear1.weight.square().sum() + ours.linear2.weight.square().sum()
    plain = nn.functional.mse_loss(ours(task.x), task.y)
    torch.testing.assert_close(first[0], (plain + squares).detach())


LAYOUTS = {
    "x-transposed": lambda t: t.T.contiguous().T,
    "x-offset": lambda t: torch.cat([t[:, :1], t], 1)[:, 1:],
    "x-every-second": lambda t: torch.stack([t, t], 1).reshape(2 * len(t), -1)[::2],
    "x-repeated": lambda t: t[:1].expand(len(t), -1),
}


@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_of_any_strides(layout, batch_size):
    task = make_task("mse_mean")
    task = task._replace(x=LAYOUTS[layout](task.x), y=task.y.T.contiguous().T)
    ours, plain = make_pair(task)
    generators = [torch.Generator().manual_seed(2) for _ in range(2)]
    batches = [(task.x, task.y)] * 4
    if batch_size is not None:
        batches = shuffled(task, 4, batch_size, generators[0])
    wanted = loop(plain, torch.optim.SGD(plain.parameters(), lr=0.1), task.loss, batches)
    found = fit(
        ours,
        task.x,
        task.y,
        epochs=4,
        lr=0.1,
        loss="mse_mean",
        batch_size=batch_size,
        generator=generators[1],
    )
    assert relative(found, wanted) < EXACT


def as_views(model):
    """The weights as transposed views, as views without a unit stride, biases as every second."""
    with torch.no_grad():
        first, second = model.linear1, model.linear2
        first.weight = nn.Parameter(first.weight.T.contiguous().T)
        wide = torch.zeros(
            second.weight.shape[0], 2 * second.weight.shape[1], dtype=first.weight.dtype
        )
        wide[:, ::2] = second.weight
        second.weight = nn.Parameter(wide[:, ::2])
        spread = torch.zeros(2 * len(first.bias), dtype=first.weight.dtype)
        spread[::2] = first.bias
        first.bias = nn.Parameter(spread[::2])


@pytest.mark.parametrize("optimizer", ["sgd-nesterov", "adam-amsgrad", "rmsprop-all"])
def test_weights_of_any_strides(optimizer):
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    as_views(ours)
    name, options = OPTIMIZERS[optimizer]
    optimizers = [CLASSES[name](model.parameters(), **options) for model in (ours, plain)]
    parameters = list(ours.parameters())
    wanted = loop(plain, optimizers[1], task.loss, [(task.x, task.y)] * 20)
    found = fit(ours, task.x, task.y, steps=10, optimizer=optimizers[0], loss=task.loss)
    found = torch.cat(
        [found, fit(ours, task.x, task.y, steps=10, optimizer=optimizers[0], loss=task.loss)]
    )
    assert relative(found, wanted) < EXACT
    assert distance(ours, plain) < EXACT
    assert all(a is b for a, b in zip(parameters, ours.parameters(), strict=True))
    assert_same_states(*optimizers, 1e-8)


@pytest.mark.parametrize(
    "make",
    [
        FusedTwoLayer,
        TwoLayerNet,
        lambda i, h, o, bias, dtype: nn.Sequential(
            nn.Linear(i, h, bias, dtype=dtype), nn.ReLU(), nn.Linear(h, o, bias, dtype=dtype)
        ),
    ],
    ids=["FusedTwoLayer", "TwoLayerNet", "Sequential"],
)
def test_each_kind_of_network(make):
    task = make_task("mse_mean")
    torch.manual_seed(3)
    model = make(*task.widths, True, dtype=task.dtype)
    torch.manual_seed(3)
    plain = TwoLayerNet(*task.widths, dtype=task.dtype)
    wanted = loop(
        plain, torch.optim.SGD(plain.parameters(), lr=0.1), task.loss, [(task.x, task.y)] * 5
    )
    found = fit(model, task.x, task.y, steps=5, lr=0.1, loss="mse_mean")
    assert relative(found, wanted) < EXACT


def test_numpy_arrays_and_mapped_files(tmp_path):
    task = make_task("mse_mean", torch.float32, samples=50)
    path = tmp_path / "x.dat"
    mapped = np.memmap(path, np.float32, "w+", shape=task.x.shape)
    mapped[:] = task.x.numpy()
    mapped.flush()
    read_only = np.memmap(path, np.float32, "r", shape=task.x.shape)
    results = []
    for x, y in ((task.x, task.y), (task.x.numpy(), task.y.numpy()), (read_only, task.y)):
        ours, _ = make_pair(task)
        generator = torch.Generator().manual_seed(0)
        results.append(
            fit(ours, x, y, epochs=4, lr=0.05, loss="mse_mean", batch_size=16, generator=generator)
        )
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("loss", ["mse_mean", "bce_with_logits", "cross_entropy"])
@pytest.mark.parametrize("samples", [20_000, 300_000])
def test_sums_over_many_samples_are_as_exact_as_torchs(loss, samples):
    """In float32, sums of one sign: errors that all go one way would show."""
    task = make_task(loss, torch.float32, samples, (2, 3, 3 if loss == "cross_entropy" else 1))
    if loss == "bce_with_logits":
        task = task._replace(y=(task.y > 0.99).float())
    errors = []
    ours, plain = make_pair(task)
    exact = copy.deepcopy(plain).double()
    x, y = task.x.double(), task.y.double() if task.y.is_floating_point() else task.y
    (wanted,) = loop(exact, torch.optim.SGD(exact.parameters(), lr=1.0), task.loss, [(x, y)])
    (value,) = loop(
        plain, torch.optim.SGD(plain.parameters(), lr=1.0), task.loss, [(task.x, task.y)]
    )
    (found,) = fit(ours, task.x, task.y, steps=1, lr=1.0, loss=task.loss)
    for result, model in ((found, ours), (value, plain)):
        bias = (model.linear2.bias.double() - exact.linear2.bias).abs().max()
        errors.append((abs(result / wanted - 1), bias))
    eps = torch.finfo(torch.float32).eps
    for mine, torchs in zip(*errors, strict=True):
        assert mine <= 2 * torchs + eps


@pytest.mark.parametrize("seed", range(3))
def test_a_variance_of_rounded_moments_is_not_below_zero(seed):
    """Its root was no number in float16 where torch's is one."""
    torch.manual_seed(seed)
    model = FusedTwoLayer(6, 30, 4, dtype=torch.float16)
    x, y = torch.randn(40, 6).half(), torch.randn(40, 4).half()
    options = {"optimizer": "rmsprop", "centered": True, "lr": 1e-3, "eps": 1e-3}
    assert fit(model, x, y, steps=300, loss="mse_mean", **options).isfinite().all()
