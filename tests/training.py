"""The plain loop beside ``fit``: the same network, data, optimizer and loss, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from twolayer_kernels import FusedTwoLayer, TwoLayerNet

SGD, ADAM, ADAMW, RMSPROP = "sgd", "adam", "adamw", "rmsprop"
CLASSES = {
    SGD: torch.optim.SGD,
    ADAM: torch.optim.Adam,
    ADAMW: torch.optim.AdamW,
    RMSPROP: torch.optim.RMSprop,
}
# Every optimizer and every option that it has.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": (SGD, {"lr": 0.05}),
    "sgd-momentum": (SGD, {"lr": 0.02, "momentum": 0.9}),
    "sgd-dampening": (SGD, {"lr": 0.05, "momentum": 0.8, "dampening": 0.3}),
    "sgd-nesterov": (SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    "sgd-decay": (SGD, {"lr": 0.05, "weight_decay": 0.1, "momentum": 0.5}),
    "sgd-maximize": (SGD, {"lr": 0.001, "maximize": True, "weight_decay": 0.1}),
    "adam": (ADAM, {"lr": 0.01}),
    "adam-betas": (ADAM, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4}),
    "adam-decay": (ADAM, {"lr": 0.01, "weight_decay": 0.1}),
    "adam-amsgrad": (ADAM, {"lr": 0.01, "amsgrad": True}),
    "adam-maximize": (ADAM, {"lr": 0.001, "maximize": True}),
    "adamw": (ADAMW, {"lr": 0.01}),
    "adamw-decay": (ADAMW, {"lr": 0.01, "weight_decay": 0.3, "amsgrad": True}),
    "adamw-maximize": (ADAMW, {"lr": 0.001, "maximize": True}),
    "rmsprop": (RMSPROP, {"lr": 0.005}),
    "rmsprop-alpha": (RMSPROP, {"lr": 0.005, "alpha": 0.8, "eps": 1e-4}),
    "rmsprop-centered": (RMSPROP, {"lr": 0.005, "centered": True}),
    "rmsprop-momentum": (RMSPROP, {"lr": 0.002, "momentum": 0.7}),
    "rmsprop-decay": (RMSPROP, {"lr": 0.005, "weight_decay": 0.1, "maximize": True}),
    "rmsprop-all": (RMSPROP, {"lr": 0.002, "momentum": 0.7, "centered": True, "weight_decay": 0.1}),
}


def _weights(count: int) -> Tensor:
    return torch.linspace(0.5, 2.0, count)


# Each loss as torch's module for so many outputs.
LOSSES: dict[str, Callable[[int], nn.Module]] = {
    "mse_sum": lambda outputs: nn.MSELoss(reduction="sum"),
    "mse_mean": lambda outputs: nn.MSELoss(),
    "cross_entropy": lambda outputs: nn.CrossEntropyLoss(),
    "cross_entropy-sum": lambda outputs: nn.CrossEntropyLoss(reduction="sum"),
    "cross_entropy-weight": lambda outputs: nn.CrossEntropyLoss(weight=_weights(outputs)),
    "cross_entropy-smooth": lambda outputs: nn.CrossEntropyLoss(
        weight=_weights(outputs), label_smoothing=0.2, ignore_index=1
    ),
    "bce_with_logits": lambda outputs: nn.BCEWithLogitsLoss(),
    "bce_with_logits-weight": lambda outputs: nn.BCEWithLogitsLoss(
        reduction="sum", pos_weight=_weights(outputs)
    ),
}


class Task(NamedTuple):
    """Data for a network of these widths."""

    x: Tensor
    y: Tensor
    widths: tuple[int, int, int]
    loss: nn.Module

    @property
    def dtype(self) -> torch.dtype:
        return self.x.dtype


def make_task(
    loss: str,
    dtype: torch.dtype = torch.float64,
    samples: int = 40,
    widths: tuple[int, int, int] = (7, 13, 5),
    seed: int = 0,
) -> Task:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, widths[0], generator=generator, dtype=torch.float64)
    if loss.startswith("cross_entropy"):
        y = torch.randint(0, widths[2], (samples,), generator=generator)
    elif loss.startswith("bce"):
        y = torch.rand(samples, widths[2], generator=generator, dtype=torch.float64).to(dtype)
    else:
        y = torch.randn(samples, widths[2], generator=generator, dtype=torch.float64).to(dtype)
    module = LOSSES[loss](widths[2]).to(dtype)
    return Task(x.to(dtype), y, widths, module)


def make_pair(
    task: Task, bias: bool = True, seed: int = 1, kind: Callable[..., nn.Module] = FusedTwoLayer
) -> tuple[nn.Module, nn.Module]:
    """A network for ``fit`` and a plain one for the loop, from the same weights."""
    torch.manual_seed(seed)
    plain = TwoLayerNet(*task.widths, bias, dtype=torch.float64).to(task.dtype)
    ours = kind(*task.widths, bias, dtype=task.dtype)
    ours.load_state_dict(plain.state_dict())
    return ours, plain


def loop(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    batches: list[tuple[Tensor, Tensor]],
    after_step: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """The loop that ``fit`` stands for; the loss of each step, in float64."""
    losses = []
    for step, (x, y) in enumerate(batches):
        loss = loss_fn(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step(step)
        losses.append(loss.detach().double())
    return torch.stack(losses)


def shuffled(
    task: Task, epochs: int, batch_size: int, generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """The batches of so many epochs over ``torch.randperm``."""
    batches = []
    for _ in range(epochs):
        order = torch.randperm(len(task.x), generator=generator)
        for places in order.split(batch_size):
            batches.append((task.x[places], task.y[places]))
    return batches


def distance(found: nn.Module, wanted: nn.Module) -> float:
    """Between the parameters, in the norm of all of them, relative."""
    a = torch.cat([p.detach().double().flatten() for p in found.parameters()])
    b = torch.cat([p.detach().double().flatten() for p in wanted.parameters()])
    return float((a - b).norm() / b.norm())


def assert_same_states(
    ours: torch.optim.Optimizer, plain: torch.optim.Optimizer, tolerance: float
) -> None:
    """The states of the two optimizers, in their names, shapes, dtypes and values."""
    found, wanted = ours.state_dict(), plain.state_dict()
    assert found["param_groups"] == wanted["param_groups"]
    assert found["state"].keys() == wanted["state"].keys()
    for key, state in wanted["state"].items():
        assert found["state"][key].keys() == state.keys()
        for name, value in state.items():
            if value is None:
                assert found["state"][key][name] is None
                continue
            torch.testing.assert_close(
                found["state"][key][name], value, rtol=tolerance, atol=tolerance
            )


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_untouched(model: nn.Module, before: dict[str, Tensor]) -> None:
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])


def small_arrays(samples: int = 6) -> tuple[np.ndarray, ...]:
    """``x``, ``y``, ``w1`` and ``w2`` of a network of 3, 4 and 2 features."""
    rng = np.random.default_rng(0)
    return (
        rng.random((samples, 3)),
        rng.random((samples, 2)),
        rng.random((4, 3)),
        rng.random((2, 4)),
    )
