"""``fit`` on a DataLoader: its batches are the steps, and it is left as the loop leaves it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from twolayer_kernels import fit

from .training import (
    CLASSES,
    OPTIMIZERS,
    assert_same_states,
    loop,
    make_pair,
    make_task,
)

EXACT = 1e-9


def test_a_loaders_batches_are_the_steps():
    task = make_task("cross_entropy")
    ours, plain = make_pair(task)
    data = TensorDataset(task.x, task.y)
    loaders = [
        DataLoader(data, 9, shuffle=True, generator=torch.Generator().manual_seed(0))
        for _ in range(2)
    ]
    batches = [tuple(batch) for _ in range(3) for batch in loaders[0]]
    wanted = loop(plain, torch.optim.Adam(plain.parameters()), task.loss, batches)
    found = fit(ours, loaders[1], epochs=3, optimizer="adam", loss=task.loss)
    torch.testing.assert_close(found, wanted, rtol=EXACT, atol=0)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd-momentum", "rmsprop"])
def test_a_loaders_batches_may_grow(kind):
    name, options = OPTIMIZERS[kind]
    task = make_task("mse_mean")
    ours, plain = make_pair(task)
    sizes = [2, 2, 2, 10, 3, 40, 5, 41]
    batches = [(task.x[:size], task.y[:size]) for size in sizes]
    optimizers = [CLASSES[name](model.parameters(), **options) for model in (ours, plain)]
    wanted = loop(plain, optimizers[1], task.loss, batches)
    loader = DataLoader(batches, batch_size=None)
    found = fit(ours, loader, epochs=1, optimizer=optimizers[0], loss=task.loss)
    torch.testing.assert_close(found, wanted, rtol=EXACT, atol=0)
    assert_same_states(*optimizers, 1e-8)


@pytest.mark.parametrize("batch_size", [8, 9])
def test_a_loaders_generator_is_left_as_the_loop_leaves_it(batch_size):
    task = make_task("mse_mean")
    ours = make_pair(task)[0]
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    data = TensorDataset(task.x, task.y)
    loaders = [DataLoader(data, batch_size, shuffle=True, generator=g) for g in generators]
    for _ in range(2):
        for _ in loaders[0]:
            pass
    fit(ours, loaders[1], epochs=2, lr=0.01, loss=task.loss)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_a_loader_brings_its_own_generator():
    task = make_task("mse_mean")
    loader = DataLoader(TensorDataset(task.x, task.y), 9)
    with pytest.raises(ValueError, match="generator comes from the DataLoader"):
        fit(make_pair(task)[0], loader, epochs=1, lr=0.1, generator=torch.Generator())


def test_a_loader_that_breaks_leaves_the_last_whole_step():
    task = make_task("mse_mean")
    ours, plain = make_pair(task)

    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            if i >= 20:
                raise OSError("unreadable")
            return task.x[i], task.y[i]

    wanted = loop(
        plain,
        torch.optim.SGD(plain.parameters(), lr=0.1),
        task.loss,
        [(task.x[:10], task.y[:10]), (task.x[10:20], task.y[10:20])],
    )
    with pytest.raises(OSError, match="unreadable") as caught:
        fit(ours, DataLoader(Broken(), 10), epochs=1, lr=0.1, loss="mse_mean")
    torch.testing.assert_close(caught.value.losses, wanted, rtol=EXACT, atol=0)
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=EXACT, atol=EXACT)
