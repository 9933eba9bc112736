"""What ends a run of ``fit``, and what it leaves behind; runs side by side, bits, the bar."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from twolayer_kernels import fit
from twolayer_kernels.numpy import fit as numpy_fit
from twolayer_kernels.training.running import Run

from .training import (
    assert_same_states,
    assert_untouched,
    loop,
    make_pair,
    make_task,
    weights,
)

EXACT = 1e-9


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("outputs", [5, 90], ids=["losses-of-all", "losses-of-some"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_its_step(value, outputs, threads):
    task = make_task("mse_mean", samples=300, widths=(50, 100, outputs))
    task.x[240] = value
    ours, plain = make_pair(task)
    batches = list(zip(task.x.split(60), task.y.split(60), strict=True))[:4]
    wanted = loop(plain, torch.optim.SGD(plain.parameters(), lr=0.1), task.loss, batches)
    torch.set_num_threads(threads)
    with pytest.raises(FloatingPointError, match="step 4 is") as caught:
        fit(ours, task.x, task.y, epochs=1, lr=0.1, loss="mse_mean", batch_size=60, shuffle=False)
    torch.set_num_threads(2)
    assert caught.value.step == 4
    torch.testing.assert_close(caught.value.losses[:4], wanted, rtol=EXACT, atol=0)
    assert len(caught.value.losses) == 5
    assert not caught.value.losses[4].isfinite()
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=EXACT, atol=EXACT)


def test_nan_continue_goes_on_as_the_loop_does():
    task = make_task("mse_mean")
    task.x[3, 2] = float("nan")
    ours, plain = make_pair(task)
    wanted = loop(
        plain, torch.optim.SGD(plain.parameters(), lr=0.1), task.loss, [(task.x, task.y)] * 3
    )
    found = fit(ours, task.x, task.y, steps=3, lr=0.1, loss="mse_mean", nan="continue")
    torch.testing.assert_close(found, wanted, equal_nan=True)
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, equal_nan=True)


def test_ctrl_c_ends_it_soon_and_whole():
    task = make_task("mse_mean", torch.float32, samples=64, widths=(100, 64, 5))
    model, _ = make_pair(task)
    sent = []

    def interrupt():
        time.sleep(0.4)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=interrupt)
    sender.start()
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(model, task.x, task.y, steps=10_000_000, optimizer=optimizer, loss="mse_mean")
    late = time.perf_counter() - sent[0]
    sender.join()
    assert late < 1  # 0.1 on an idle machine
    taken = len(caught.value.losses)
    assert optimizer.state[model.linear1.weight]["step"] == taken > 0
    again, _ = make_pair(task)
    fit(again, task.x, task.y, steps=taken, optimizer="adam", loss="mse_mean")
    assert_untouched(again, weights(model))


@pytest.mark.parametrize(
    ("size", "batch_size"),
    [({}, 8), ({"samples": 60, "widths": (120, 100, 5)}, 60)],
    ids=["one-thread-each", "two-threads-each"],
)
def test_fits_side_by_side_have_the_bits_they_have_alone(size, batch_size):
    tasks = [make_task("cross_entropy", torch.float32, seed=seed, **size) for seed in range(4)]

    def run(task, model):
        fit(
            model,
            task.x,
            task.y,
            epochs=60,
            optimizer="adam",
            loss="cross_entropy",
            batch_size=batch_size,
            generator=torch.Generator().manual_seed(1),
        )
        return weights(model)

    # Made one after the other: all draw from torch's one generator.
    models = [(make_pair(task)[0], make_pair(task)[0]) for task in tasks]
    alone = [run(task, model) for task, (model, _) in zip(tasks, models, strict=True)]
    together = [None] * len(tasks)

    def keep(i):
        together[i] = run(tasks[i], models[i][1])

    threads = [threading.Thread(target=keep, args=(i,)) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_seed_gives_the_same_bits():
    task = make_task("bce_with_logits", torch.float32, samples=300, widths=(40, 64, 8))
    runs = []
    for _ in range(3):
        model, _ = make_pair(task)
        torch.manual_seed(11)
        runs.append(
            fit(model, task.x, task.y, epochs=5, batch_size=64, loss="bce_with_logits", lr=0.1)
        )
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])


def test_progress_shows_a_bar(capsys):
    task = make_task("mse_mean")
    fit(make_pair(task)[0], task.x, task.y, steps=30, lr=0.01, loss="mse_mean", progress=True)
    assert "30/30" in capsys.readouterr().out


def test_progress_without_rich_says_what_is_missing():
    code = """
import sys; sys.modules["rich"] = None
import torch
from twolayer_kernels import FusedTwoLayer, fit
try:
    fit(FusedTwoLayer(1, 1, 1), torch.ones(1, 1), torch.ones(1, 1), steps=1, progress=True)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "twolayer_kernels[cli]" in done.stdout


def test_the_first_call_in_a_process_is_quick():
    code = """
import sys, time, torch
from twolayer_kernels import FusedTwoLayer, fit
from twolayer_kernels import training
model, x, y = FusedTwoLayer(16, 32, 4), torch.randn(8, 16), torch.randn(8, 4)
start = time.perf_counter()
fit(model, x, y, steps=1, lr=0.1)
print(1e3 * (time.perf_counter() - start))
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1000  # milliseconds; 5 on an idle machine, see the benches


def test_wherever_ctrl_c_comes_all_is_as_after_one_step():
    """Weights, the counts and moments of Adam, the scheduler and the generator agree."""
    random = np.random.default_rng(0)
    task = make_task("mse_mean", torch.float32, samples=60, widths=(4, 8, 2))
    heard = 0
    for _ in range(25):
        models = make_pair(task)
        optimizers = [torch.optim.Adam(model.parameters(), lr=1e-3) for model in models]
        schedules = [lr_scheduler.StepLR(optimizer, 50, 0.99) for optimizer in optimizers]
        generators = [torch.Generator().manual_seed(4) for _ in models]

        def run(place, steps, task=task, models=models, optimizers=optimizers,
                schedules=schedules, generators=generators):  # fmt: skip
            fit(
                models[place], task.x, task.y, steps=steps, batch_size=20, loss="mse_mean",
                optimizer=optimizers[place], schedule=schedules[place],
                generator=generators[place], callback=lambda *_: None, callback_every=10,
            )  # fmt: skip

        timer = threading.Timer(random.uniform(0.01, 0.08), signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt) as caught:
            run(0, 10**6)
        steps = len(caught.value.losses) if hasattr(caught.value, "losses") else 0
        heard += steps > 0
        if steps:
            run(1, steps)
        assert_untouched(models[0], weights(models[1]))
        assert_same_states(*optimizers, 0)
        assert schedules[0].state_dict() == schedules[1].state_dict()
        assert torch.equal(generators[0].get_state(), generators[1].get_state())
    assert heard > 5


@pytest.mark.parametrize("epochs", [1, 2])
def test_ctrl_c_at_the_end_of_an_epoch_waits_for_its_scheduler(monkeypatch, epochs):
    task = make_task("mse_mean", samples=60)
    model, _ = make_pair(task)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
    write_back, written = Run.write_back, []

    def and_then_ctrl_c(self):
        write_back(self)
        written.append(self.taken)
        if len(written) == epochs:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "write_back", and_then_ctrl_c)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(
            model, task.x, task.y, epochs=3, batch_size=20, loss="mse_mean", optimizer=optimizer,
            schedule=schedule, schedule_per="epoch",
        )  # fmt: skip
    assert len(caught.value.losses) == 3 * epochs
    assert schedule.last_epoch == epochs
    assert optimizer.param_groups[0]["lr"] == 0.1 * 0.5**epochs


def diverge_in_torch():
    task = make_task("mse_mean")
    fit(make_pair(task)[0], task.x * float("inf"), task.y, steps=2, loss="mse_mean")


def diverge_in_numpy():
    numpy_fit(np.full((2, 1), np.inf), np.ones((2, 1)), np.ones((3, 1)), np.ones((1, 3)), steps=2)


@pytest.mark.parametrize("diverge", [diverge_in_torch, diverge_in_numpy])
@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_divergence_comes_out_of_a_worker(diverge, copied):
    with pytest.raises(FloatingPointError) as caught:
        diverge()
    error = copied(caught.value)
    assert type(error) is type(caught.value)
    assert str(error) == str(caught.value)
    assert (error.step, len(error.losses)) == (0, 1)


class Unmarked(Exception):
    losses = property()


def test_an_error_that_takes_no_losses_comes_through():
    def fail(steps, losses):
        raise Unmarked

    task = make_task("mse_mean")
    with pytest.raises(Unmarked):
        fit(make_pair(task)[0], task.x, task.y, steps=2, loss="mse_mean", callback=fail)
    with pytest.raises(Unmarked):
        numpy_fit(*[np.ones((2, 2))] * 2, np.eye(2), np.eye(2), steps=1, lr=0.0, callback=fail)


def test_ctrl_c_while_orders_are_drawn_leaves_the_generator_where_it_was():
    drawn = []

    class Random(np.random.Generator):
        def permutation(self, count):
            drawn.append(count)
            if len(drawn) == 3:
                raise KeyboardInterrupt
            return super().permutation(count)

    random = Random(np.random.PCG64(1))
    w1, w2 = np.ones((4, 3)), np.ones((1, 4))
    with pytest.raises(KeyboardInterrupt):
        numpy_fit(np.ones((20, 3)), np.ones((20, 1)), w1, w2, epochs=9, batch_size=5, rng=random)
    assert random.bit_generator.state == np.random.PCG64(1).state
    np.testing.assert_array_equal(w1, 1.0)


@pytest.mark.parametrize("samples", [40, 300], ids=["one-thread", "two-threads"])
@pytest.mark.parametrize(("dtype", "huge"), [(torch.float32, 1e25), (torch.float64, 1e200)])
def test_a_penalty_that_is_no_number_stops_before_its_step(dtype, huge, samples):
    task = make_task("mse_mean", dtype, samples, (50, 100, 5))
    task.x[:, 3] = 0  # the outputs do not see it
    ours, _ = make_pair(task)
    with torch.no_grad():
        ours.linear1.weight[:, 3] = huge
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises(FloatingPointError, match="step 0 is"):
        fit(ours, task.x, task.y, steps=2, lr=1e-3, loss=task.loss, l2_penalty=1e-3)
    assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())
