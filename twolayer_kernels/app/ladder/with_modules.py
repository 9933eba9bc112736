"""The rungs built of modules: sequential, optim, module, dynamic."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...modules import FusedLinearReLU, FusedTwoLayer, TwoLayerNet
from ...training import fit
from .by_hand import Fit, Step
from .problem import HIDDEN_FEATURES, IN_FEATURES, OUT_FEATURES, Array, Problem

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
LR = 1e-4
NORMAL_LR = 1e-6  # from standard normal weights
# At 1e-4 the loss comes down to 1e-10 in 300 steps; RMSprop's divisor then shrinks with the
# gradients until the steps are too long, and the loss leaps to where rounding sends it.
RMSPROP_LR = 3e-5


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=LR)


def momentum(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=LR, momentum=0.9)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=LR)


def rmsprop(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr=RMSPROP_LR)


def _linears(problem: Problem, bias: bool, normal: bool) -> tuple[nn.Linear, nn.Linear]:
    if normal:
        return problem.normal_linears()
    first, _, last = problem.linears(bias)
    return first, last


def _network(problem: Problem, fused: bool, bias: bool, normal: bool) -> nn.Module:
    """``nn.Sequential``, or the fused module over layers with the same parameters."""
    first, last = _linears(problem, bias, normal)
    if fused:
        return FusedTwoLayer.from_linears(first, last, backend=problem.backend)
    return nn.Sequential(first, nn.ReLU(), last)


def sequential(problem: Problem, fused: bool, bias: bool, normal: bool) -> Step:
    """The update is a loop over ``parameters()``."""
    x, y = problem.tensors()
    model = _network(problem, fused, bias, normal)
    loss_fn = nn.MSELoss(reduction="sum")
    lr = NORMAL_LR if normal else LR

    def step() -> float:
        loss = loss_fn(model(x), y)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.sub_(lr * parameter.grad)
        return float(loss.item())

    return step


def _fitted(model: nn.Module, problem: Problem, make_optimizer: MakeOptimizer) -> Fit | None:
    """By ``fit``, the optimizer kept from call to call; it trains on the CPU alone."""
    if torch.device(problem.device).type != "cpu":
        return None
    x, y = problem.tensors()
    loss_fn = nn.MSELoss(reduction="sum")
    optimizer = make_optimizer(model.parameters())

    def take(steps: int) -> Array:
        losses = fit(model, x, y, steps=steps, optimizer=optimizer, loss=loss_fn, nan="continue")
        return losses.numpy()

    return take


def sequential_fit(problem: Problem, bias: bool, normal: bool) -> Fit | None:
    model = _network(problem, False, bias, normal)
    lr = NORMAL_LR if normal else LR
    return _fitted(model, problem, lambda parameters: torch.optim.SGD(parameters, lr=lr))


def _optimized(model: nn.Module, problem: Problem, make_optimizer: MakeOptimizer) -> Step:
    x, y = problem.tensors()
    loss_fn = nn.MSELoss(reduction="sum")
    optimizer = make_optimizer(model.parameters())

    def step() -> float:
        loss = loss_fn(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def optim(problem: Problem, fused: bool, make_optimizer: MakeOptimizer) -> Step:
    model = _network(problem, fused, bias=True, normal=False)
    return _optimized(model, problem, make_optimizer)


def optim_fit(problem: Problem, make_optimizer: MakeOptimizer) -> Fit | None:
    model = _network(problem, False, bias=True, normal=False)
    return _fitted(model, problem, make_optimizer)


def _module(problem: Problem, fused: bool, bias: bool) -> nn.Module:
    """The plain module's state dict loads into the fused one as it is."""
    first, last = _linears(problem, bias, normal=False)
    plain = TwoLayerNet(
        IN_FEATURES,
        HIDDEN_FEATURES,
        OUT_FEATURES,
        bias,
        dtype=problem.dtype,
        device=problem.device,
    )
    plain.linear1, plain.linear2 = first, last
    model: nn.Module = plain
    if fused:
        model = FusedTwoLayer(
            IN_FEATURES,
            HIDDEN_FEATURES,
            OUT_FEATURES,
            bias,
            backend=problem.backend,
            dtype=problem.dtype,
            device=problem.device,
        )
        model.load_state_dict(plain.state_dict())
    return model


def module(problem: Problem, fused: bool, bias: bool, make_optimizer: MakeOptimizer) -> Step:
    return _optimized(_module(problem, fused, bias), problem, make_optimizer)


def module_fit(problem: Problem, bias: bool, make_optimizer: MakeOptimizer) -> Fit | None:
    return _fitted(_module(problem, True, bias), problem, make_optimizer)


class DynamicNet(nn.Module):
    """The middle layer runs 0 to 3 times, by plain Python control flow, on shared weights."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.first, self.middle, self.last = problem.linears(bias=True)
        self.choices = random.Random(problem.seed)

    def forward(self, x: Tensor) -> Any:
        a = self.first(x).clamp(min=0)
        for _ in range(self.choices.randint(0, 3)):
            a = self.middle(a).clamp(min=0)
        return self.last(a)


class FusedDynamicNet(nn.Module):
    """The same; each layer with its ReLU is one fused call."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        first, middle, self.last = problem.linears(bias=True)
        self.first = self._with_relu(first, problem.backend)
        self.middle = self._with_relu(middle, problem.backend)
        self.choices = random.Random(problem.seed)

    @staticmethod
    def _with_relu(linear: nn.Linear, backend: str | None) -> FusedLinearReLU:
        fused = FusedLinearReLU(
            linear.in_features,
            linear.out_features,
            backend=backend,
            dtype=linear.weight.dtype,
            device=linear.weight.device,
        )
        fused.load_state_dict(linear.state_dict())
        return fused

    def forward(self, x: Tensor) -> Any:
        a = self.first(x)
        for _ in range(self.choices.randint(0, 3)):
            a = self.middle(a)
        return self.last(a)


def dynamic(problem: Problem, fused: bool) -> Step:
    model = FusedDynamicNet(problem) if fused else DynamicNet(problem)
    return _optimized(model, problem, momentum)
