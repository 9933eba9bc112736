"""What is timed: each work at each shape, written for every peer, and its sums of operations.

A peer is a function that builds one: given the data of a case it returns a
call without arguments that does the work once, and returns its results so that
they can be checked before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import twolayer_kernels.numpy as fused_numpy
from tests.shapes import BENCH_SHAPES, Shape
from twolayer_kernels import FusedTwoLayer, TwoLayerNet

LEARNING_RATE = 1e-4
Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One row of the table: a work on data of one size and dtype."""

    work: str  # "forward", "forward+backward" or "step"
    shape: Shape
    dtype: torch.dtype
    bias: bool = True

    @property
    def id(self) -> str:
        bias = "" if self.bias else "-nobias"
        return f"{self.work}-{self.shape}-{str(self.dtype).removeprefix('torch.')}{bias}"

    @property
    def operations(self) -> int:
        """Multiply-adds count two. The input needs no gradient: five products, two forward."""
        batch, in_features, hidden_features, out_features = self.shape
        first, second = (
            batch * in_features * hidden_features,
            batch * hidden_features * out_features,
        )
        return 2 * (first + second if self.work == "forward" else 2 * first + 3 * second)

    def network(self) -> TwoLayerNet:
        """Its parameters are those of the float32 network, rounded or widened."""
        torch.manual_seed(0)
        _, in_features, hidden_features, out_features = self.shape
        return TwoLayerNet(in_features, hidden_features, out_features, bias=self.bias).to(
            self.dtype
        )

    def data(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(self.shape.batch, self.shape.in_features, generator=generator)
        y = torch.randn(self.shape.batch, self.shape.out_features, generator=generator)
        return x.to(self.dtype), y.to(self.dtype)


# The order in which every peer returns its gradients.
_PARAMETERS = ("linear1.weight", "linear2.weight", "linear1.bias", "linear2.bias")


def _torch_call(case: Case, net: TwoLayerNet, model: nn.Module) -> Call:
    """``model`` runs the parameters of ``net``."""
    x, y = case.data()
    named = dict(net.named_parameters())
    parameters = [named[name] for name in _PARAMETERS if name in named]
    if case.work == "forward":

        def forward() -> Tensor:
            with torch.inference_mode():
                out: Tensor = model(x)
            return out

        return forward
    if case.work == "forward+backward":

        def forward_backward() -> list[Tensor | None]:
            for parameter in parameters:
                parameter.grad = None
            model(x).backward(y)
            return [parameter.grad for parameter in parameters]

        return forward_backward
    optimizer = torch.optim.SGD(parameters, lr=LEARNING_RATE)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def eager(case: Case) -> Call:
    net = case.network()
    return _torch_call(case, net, net)


def compiled(case: Case) -> Call:
    torch._dynamo.reset()
    net = case.network()
    return _torch_call(case, net, torch.compile(net))  # type: ignore[arg-type]


def fused(case: Case) -> Call:
    net = case.network()
    return _torch_call(case, net, FusedTwoLayer.from_linears(net.linear1, net.linear2))


def _numpy_parameters(case: Case) -> list[Any]:
    net = case.network()
    parameters = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
    return [parameters.get(name) for name in _PARAMETERS]


def numpy(case: Case) -> Call:
    """By hand, as the tutorials do it."""
    w1, w2, b1, b2 = _numpy_parameters(case)
    x, y = (t.numpy() for t in case.data())

    def forward() -> tuple[Any, Any]:
        h = x @ w1.T
        if b1 is not None:
            h += b1
        a = np.maximum(h, 0)
        out = a @ w2.T
        if b2 is not None:
            out += b2
        return out, a

    def backward(grad_y: Any, a: Any) -> list[Any]:
        dh = grad_y @ w2
        dh[a <= 0] = 0
        gradients = [dh.T @ x, grad_y.T @ a]
        return gradients + ([dh.sum(0), grad_y.sum(0)] if b1 is not None else [])

    return _numpy_call(case, [w1, w2, b1, b2], y, forward, backward)


def fused_with_numpy(case: Case) -> Call:
    """The same by hand, on this library's NumPy front end."""
    w1, w2, b1, b2 = _numpy_parameters(case)
    x, y = (t.numpy() for t in case.data())
    needs = (False, True, True, b1 is not None, b1 is not None)

    def forward() -> tuple[Any, Any]:
        if case.work == "forward":
            return fused_numpy.two_layer(x, w1, w2, b1, b2), None
        return fused_numpy.two_layer_forward(x, w1, w2, b1, b2)

    def backward(grad_y: Any, a: Any) -> list[Any]:
        gradients = fused_numpy.two_layer_backward(grad_y, x, w1, w2, b1, a, needs)
        return [g for g in gradients if g is not None]

    return _numpy_call(case, [w1, w2, b1, b2], y, forward, backward)


def _numpy_call(
    case: Case,
    parameters: list[Any],
    y: Any,
    forward: Callable[[], tuple[Any, Any]],
    backward: Callable[[Any, Any], list[Any]],
) -> Call:
    if case.work == "forward":
        return lambda: forward()[0]
    if case.work == "forward+backward":
        return lambda: backward(y, forward()[1])
    present = [p for p in parameters if p is not None]
    rate = y.dtype.type(LEARNING_RATE)

    def step() -> Any:
        out, a = forward()
        difference = out - y
        loss = np.square(difference).mean()
        gradients = backward(difference * y.dtype.type(2 / difference.size), a)
        for parameter, gradient in zip(present, gradients, strict=True):
            parameter -= rate * gradient
        return loss

    return step


PEERS: dict[str, Callable[[Case], Call]] = {
    "fused": fused,
    "eager": eager,
    "compile": compiled,
    "numpy": numpy,
    "fused numpy": fused_with_numpy,
}


def peers_of(case: Case) -> list[str]:
    """NumPy has no bfloat16."""
    return [p for p in PEERS if case.dtype != torch.bfloat16 or "numpy" not in p]


_MIDDLE_AND_TUTORIAL = BENCH_SHAPES[:2]

_ONE_SAMPLE = Shape(1, 1000, 100, 10)

CASES = [
    Case("forward", _ONE_SAMPLE, torch.float32),
    *(
        Case(work, shape, torch.float32)
        for shape in BENCH_SHAPES
        for work in ("forward", "forward+backward", "step")
    ),
    *(
        Case("forward+backward", shape, dtype)
        for dtype in (torch.float64, torch.bfloat16)
        for shape in _MIDDLE_AND_TUTORIAL
    ),
]


@dataclass(frozen=True)
class Product:
    """One of the six matrix products of a step, as ``c[M, N] = a[M, K] b[K, N]``."""

    name: str
    shape: Shape
    dtype: torch.dtype

    @property
    def id(self) -> str:
        return f"{self.name}-{self.shape}-{str(self.dtype).removeprefix('torch.')}"

    @property
    def operands(self) -> tuple[Tensor, Tensor]:
        """Views of ``(batch, features)`` and ``(out, in)`` tensors, as the network has them."""
        batch, in_features, hidden_features, out_features = self.shape
        generator = torch.Generator().manual_seed(2)

        def new(rows: int, cols: int) -> Tensor:
            return torch.randn(rows, cols, generator=generator).to(self.dtype)

        x, dh, a = (new(batch, n) for n in (in_features, hidden_features, hidden_features))
        dy = new(batch, out_features)
        w1, w2 = new(hidden_features, in_features), new(out_features, hidden_features)
        return {
            "h": (x, w1.T),
            "y": (a, w2.T),
            "dh": (dy, w2),
            "dw2": (dy.T, a),
            "dw1": (dh.T, x),
            "dx": (dh, w1),
        }[self.name]

    @property
    def operations(self) -> int:
        a, b = self.operands
        return 2 * a.shape[0] * a.shape[1] * b.shape[1]


PRODUCTS = [
    Product(name, shape, dtype)
    for dtype in (torch.float32, torch.bfloat16)
    for shape in BENCH_SHAPES[:3]
    for name in ("h", "y", "dh", "dw2", "dw1", "dx")
]
