"""The rungs built of modules: sequential, optim, module, dynamic."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...modules import FusedLinearReLU, FusedTwoLayer, TwoLayerNet
from .by_hand import Step
from .problem import HIDDEN_FEATURES, IN_FEATURES, OUT_FEATURES, Problem

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
LR = 1e-4
NORMAL_LR = 1e-6  # from standard normal weights


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=LR)


def momentum(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=LR, momentum=0.9)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=LR)


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


def module(problem: Problem, fused: bool, bias: bool, make_optimizer: MakeOptimizer) -> Step:
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
    return _optimized(model, problem, make_optimizer)


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
