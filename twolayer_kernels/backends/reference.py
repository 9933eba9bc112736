"""The oracle: the contract's formulas in float64, one after another, rounded once at the end."""

from __future__ import annotations

import torch
from torch import Tensor

Gradient = Tensor | None

CHECKS_ARGUMENTS = False
ADDS_TO_MAIN_GRAD = False


def unsupported(device_type: str, dtype: torch.dtype) -> str | None:
    if device_type == "mps":
        return "float64, which the reference computes in, does not exist on mps"
    return None


def _linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    h = x.double() @ w.double().T
    return h if b is None else h + b.double()


def _masked(grad: Tensor, a: Tensor) -> Tensor:
    return torch.where(a <= 0, torch.zeros_like(grad), grad)  # NaN is not <= 0: its gradient passes


def linear_relu_forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    return torch.relu(_linear(x, w, b)).to(x.dtype)


def linear_relu_backward(
    grad_a: Tensor, x: Tensor, w: Tensor, a: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Gradient, Gradient, Gradient]:
    dtype = x.dtype
    dh = _masked(grad_a.double(), a)
    return (
        (dh @ w.double()).to(dtype) if needs[0] else None,
        (dh.T @ x.double()).to(dtype) if needs[1] else None,
        dh.sum(0).to(dtype) if needs[2] else None,
    )


def two_layer_forward(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    b2: Tensor | None,
    keep_activation: bool,
) -> tuple[Tensor, Tensor | None]:
    a = torch.relu(_linear(x, w1, b1))
    y = _linear(a, w2, b2).to(x.dtype)
    return y, a.to(x.dtype) if keep_activation else None


def two_layer_backward(
    grad_y: Tensor,
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    a: Tensor | None,
    needs: tuple[bool, bool, bool, bool, bool],
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    dtype = grad_y.dtype
    dy = grad_y.double()
    grad_b2 = dy.sum(0).to(dtype) if needs[4] else None
    if not any(needs[:4]):
        return None, None, None, None, grad_b2
    if a is None:
        a = torch.relu(_linear(x, w1, b1))
    dh = _masked(dy @ w2.double(), a)
    return (
        (dh @ w1.double()).to(dtype) if needs[0] else None,
        (dh.T @ x.double()).to(dtype) if needs[1] else None,
        (dy.T @ a.double()).to(dtype) if needs[2] else None,
        dh.sum(0).to(dtype) if needs[3] else None,
        grad_b2,
    )
