"""``fit`` and ``step`` on NumPy arrays: the trajectory of torch's loop, state in a dict, errors."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from twolayer_kernels import FusedTwoLayer
from twolayer_kernels import fit as torch_fit
from twolayer_kernels.numpy import fit, step

from .test_imports import in_a_fresh_process
from .training import CLASSES, OPTIMIZERS, loop, make_pair, make_task, small_arrays

EXACT = 1e-9

LOSSES = {
    "mse_sum": {},
    "mse_mean": {},
    "cross_entropy": {},
    "cross_entropy-smooth": {
        "class_weight": np.linspace(0.5, 2.0, 5),
        "label_smoothing": 0.2,
        "ignore_index": 1,
    },
    "bce_with_logits": {},
}


def arrays(model):
    first, second = model.linear1, model.linear2
    found = [first.weight, second.weight, first.bias, second.bias]
    return [None if t is None else t.detach().numpy() for t in found]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_trajectory_is_torchs(kind, loss):
    name, options = OPTIMIZERS[kind]
    task = make_task(loss)
    ours, plain = make_pair(task)
    if loss == "mse_sum" and name == "sgd":
        options = {**options, "lr": options["lr"] / 50}
    batches = [(task.x, task.y)] * 40
    wanted = loop(plain, CLASSES[name](plain.parameters(), **options), task.loss, batches)
    state = {}
    found = [
        fit(
            task.x.numpy(),
            task.y.numpy(),
            *arrays(ours),
            steps=20,
            optimizer=name,
            loss=loss.partition("-")[0],
            loss_options=LOSSES[loss],
            state=state,
            **options,
        )
        for _ in range(2)
    ]
    np.testing.assert_allclose(np.concatenate(found), wanted.numpy(), rtol=EXACT)
    assert state["step"] == 40
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=EXACT, atol=EXACT)


def test_steps_are_a_fit():
    task = make_task("mse_mean")
    models = make_pair(task)
    states = {}, {}
    options = {"optimizer": "adam", "loss": "mse_mean", "lr": 0.01}
    x, y = task.x.numpy(), task.y.numpy()
    single = [step(x, y, *arrays(models[0]), state=states[0], **options) for _ in range(10)]
    whole = fit(x, y, *arrays(models[1]), steps=10, state=states[1], **options)
    assert single == whole.tolist()
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][key])


@pytest.mark.parametrize("batch_size", [7, 40])
def test_mini_batches_follow_the_generator(batch_size):
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    random, again = np.random.default_rng(3), np.random.default_rng(3)
    batches = []
    for _ in range(3):
        order = again.permutation(len(task.x))
        for first in range(0, len(order), batch_size):
            places = torch.from_numpy(order[first : first + batch_size])
            batches.append((task.x[places], task.y[places]))
    wanted = loop(plain, torch.optim.SGD(plain.parameters(), lr=0.1), task.loss, batches)
    found = fit(
        task.x.numpy(),
        task.y.numpy(),
        *arrays(ours),
        epochs=3,
        batch_size=batch_size,
        lr=0.1,
        loss="mse_mean",
        rng=random,
    )
    np.testing.assert_allclose(found, wanted.numpy(), rtol=EXACT)
    assert random.integers(1 << 60) == again.integers(1 << 60)


@pytest.mark.parametrize("layout", ["transposed", "every-second", "reversed"])
def test_weights_of_any_strides(layout):
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    place = {
        "transposed": lambda a: np.ascontiguousarray(a.T).T,
        "every-second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        "reversed": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
    }[layout]
    parameters = [place(a) for a in arrays(ours)]
    reference = torch.optim.Adam(plain.parameters())
    wanted = loop(plain, reference, task.loss, [(task.x, task.y)] * 10)
    state = {}
    found = [
        fit(
            task.x.numpy(),
            task.y.numpy(),
            *parameters,
            steps=5,
            optimizer="adam",
            loss="mse_mean",
            state=state,
        )
        for _ in range(2)
    ]
    np.testing.assert_allclose(np.concatenate(found), wanted.numpy(), rtol=EXACT)
    for found_array, wanted_array in zip(parameters, arrays(plain), strict=True):
        np.testing.assert_allclose(found_array, wanted_array, rtol=EXACT, atol=EXACT)


def test_a_callback_stops_and_a_schedule_changes():
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)

    def change(step):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.9 ** (step + 1)

    wanted = loop(plain, optimizer, task.loss, [(task.x, task.y)] * 6, change)
    found = fit(
        task.x.numpy(),
        task.y.numpy(),
        *arrays(ours),
        steps=100,
        loss="mse_mean",
        schedule=lambda step: 0.1 * 0.9**step,
        callback=lambda step, losses: step == 6,
        callback_every=3,
    )
    np.testing.assert_allclose(found, wanted.numpy(), rtol=EXACT)


def test_a_loss_that_is_no_number_stops_before_its_step():
    task = make_task("mse_mean")
    task.x[35] = float("nan")
    ours, _ = make_pair(task)
    parameters = arrays(ours)
    x, y = task.x.numpy(), task.y.numpy()
    once = [None if a is None else a.copy() for a in parameters]
    fit(x[:20], y[:20], *once, steps=1, lr=0.1, loss="mse_mean")
    with pytest.raises(FloatingPointError, match="step 1 is nan") as caught:
        fit(x, y, *parameters, epochs=1, batch_size=20, shuffle=False, lr=0.1, loss="mse_mean")
    assert len(caught.value.losses) == 2
    for found, wanted in zip(parameters, once, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_state_that_cannot_be_written_is_carried_on_in_a_copy():
    task = make_task("mse_mean")
    x, y = task.x.numpy(), task.y.numpy()
    options = {"steps": 3, "optimizer": "adam", "loss": "mse_mean"}
    results = []
    for locked in (False, True):
        state = {}
        parameters = arrays(make_pair(task)[0])
        fit(x, y, *parameters, state=state, **options)
        before = state["w1.exp_avg"].copy()
        for array in state.values():
            array.flags.writeable = not locked
        kept = state["w1.exp_avg"]
        results.append(fit(x, y, *parameters, state=state, **options))
    np.testing.assert_array_equal(*results)
    np.testing.assert_array_equal(kept, before)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_a_part_of_a_wider_array_is_trained_with_any_state(optimizer):
    x, y, w1, w2 = small_arrays()
    wide = np.zeros((4, 8))
    wide[:, 1:4] = w1
    options = {"optimizer": optimizer, "lr": 0.01, "steps": 5}
    options |= {"momentum": 0.9} if optimizer != "adam" else {}
    states = {}, {}
    copies = w2.copy(), w2.copy()
    wanted = fit(x, y, w1, copies[0], state=states[0], **options)
    found = fit(x, y, wide[:, 1:4], copies[1], state=states[1], **options)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(wide[:, 1:4], w1)
    assert not wide[:, 4:].any()


def test_momentum_that_is_turned_on_begins_with_the_gradient():
    x, y, w1, w2 = small_arrays()
    tensors = [torch.tensor(w, requires_grad=True) for w in (w1, w2)]
    wanted, state, found = [], {}, []
    optimizer = torch.optim.SGD(tensors, lr=0.01)
    for momentum, dampening in ((0.0, 0.0), (0.9, 0.3)):
        optimizer.param_groups[0].update(momentum=momentum, dampening=dampening)
        for _ in range(3):
            hidden = (torch.tensor(x) @ tensors[0].T).relu()
            loss = (hidden @ tensors[1].T - torch.tensor(y)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            wanted.append(loss.item())
        options = {"momentum": momentum, "dampening": dampening, "lr": 0.01}
        found.extend(fit(x, y, w1, w2, steps=3, state=state, **options))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("sizes", [(0, 4, 2), (3, 0, 2), (3, 4, 0)], ids=str)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_empty_layers_are_trained_as_torchs_are(sizes, optimizer):
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="zero-element"):
        model = FusedTwoLayer(*sizes, dtype=torch.float64)
    weights = [None if w is None else w.copy() for w in arrays(model)]
    x, y = torch.randn(5, sizes[0]).double(), torch.randn(5, sizes[2]).double()
    options = {"steps": 4, "optimizer": optimizer, "lr": 0.01}
    found = fit(x.numpy(), y.numpy(), *weights, **options)
    np.testing.assert_allclose(found, torch_fit(model, x, y, **options), rtol=1e-12)
    for ours, torchs in zip(weights, arrays(model), strict=True):
        np.testing.assert_allclose(ours, torchs, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_weights_in_a_field_of_packed_records(dtype):
    x, y, w1, w2 = (array.astype(dtype) for array in small_arrays())
    table = np.zeros(len(x), [("weight", dtype), ("valid", "?")])
    table["weight"] = np.arange(len(x))
    found = [
        fit(x, y, w1.copy(), w2.copy(), steps=2, lr=1e-4, sample_weight=weight)
        for weight in (table["weight"], table["weight"].copy())
    ]
    np.testing.assert_array_equal(*found)


def test_weights_at_odd_addresses_are_trained_in_copies():
    x, y, w1, w2 = small_arrays()
    memory = np.zeros(w1.nbytes + 1, np.uint8)
    odd = memory[1:].view(w1.dtype).reshape(w1.shape)
    odd[...] = w1
    assert not odd.flags.aligned
    found = fit(x, y, odd, w2.copy(), steps=3, momentum=0.9)
    np.testing.assert_array_equal(found, fit(x, y, w1, w2, steps=3, momentum=0.9))
    np.testing.assert_array_equal(odd, w1)


def test_one_positive_weight_is_all_outputs():
    x, y, w1, w2 = small_arrays()
    found = [
        fit(x, y, w1.copy(), w2.copy(), steps=2, loss="bce_with_logits",
            loss_options={"pos_weight": weight})
        for weight in (2.0, np.full(y.shape[1], 2.0))
    ]  # fmt: skip
    np.testing.assert_array_equal(*found)


def test_numbers_of_numpys_types():
    x, y, w1, w2 = small_arrays()
    options = {"batch_size": np.uint8(3), "l2_penalty": np.float32(0.1)}
    options |= {"callback": lambda *_: None, "callback_every": np.int8(100)}
    losses = fit(x, y, w1, w2, lr=1e-4, epochs=np.uint8(200), **options)
    assert len(losses) == 400  # a sum of two int8 would have wrapped


@pytest.mark.parametrize("number", [1, np.float16(1), Fraction(1)])
def test_a_schedule_beside_options_of_any_type(number):
    """Its rates were rounded to these, to 0."""
    found = []
    for lr in (number, 1.0):
        x, y, w1, w2 = small_arrays()
        options = {"schedule": lambda step: 1.2345e-4 * step, "momentum": lr * 0}
        found.append(fit(x, y, w1, w2, lr=lr, steps=5, **options))
    np.testing.assert_array_equal(*found)


def test_classes_that_a_callback_spoils_end_the_run():
    x, _, w1, w2 = small_arrays()
    classes = np.array([0, 1, 0, 1, 0, 1])

    def spoil(step, losses):
        classes[3] = 10**11

    options = {"loss": "cross_entropy", "loss_options": {"class_weight": [1.0, 2.0]}}
    with pytest.raises(IndexError, match=r"y\[3\] is no class"):
        fit(x, classes, w1, w2, steps=4, callback=spoil, callback_every=2, **options)


def test_torch_is_not_imported():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, twolayer_kernels.numpy as tk\n"
        "w1, w2 = np.ones((4, 3)), np.ones((1, 4))\n"
        "print(tk.step(np.ones((2, 3)), np.zeros((2, 1)), w1, w2, loss='mse_mean'))"
    )
    assert in_a_fresh_process(code) == "144.0"
