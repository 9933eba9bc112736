"""torch's own kernels, for devices and dtypes that no kernel of ours serves or serves better."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

Gradient = Tensor | None

CHECKS_ARGUMENTS = False
ADDS_TO_MAIN_GRAD = False


def unsupported(device_type: str, dtype: torch.dtype) -> str | None:
    return None


def _masked(grad: Tensor, a: Tensor) -> Tensor:
    masked: Tensor = torch.ops.aten.threshold_backward(grad, a, 0)
    return masked


def linear_relu_forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    return linear(x, w, b).relu_()


def linear_relu_backward(
    grad_a: Tensor, x: Tensor, w: Tensor, a: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Gradient, Gradient, Gradient]:
    dh = _masked(grad_a, a)
    return (
        dh @ w if needs[0] else None,
        dh.T @ x if needs[1] else None,
        dh.sum(0) if needs[2] else None,
    )


def two_layer_forward(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    b2: Tensor | None,
    keep_activation: bool,
) -> tuple[Tensor, Tensor | None]:
    a = linear(x, w1, b1).relu_()
    return linear(a, w2, b2), a if keep_activation else None


def two_layer_backward(
    grad_y: Tensor,
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    a: Tensor | None,
    needs: tuple[bool, bool, bool, bool, bool],
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    grad_b2 = grad_y.sum(0) if needs[4] else None
    if not any(needs[:4]):
        return None, None, None, None, grad_b2
    if a is None:
        a = linear_relu_forward(x, w1, b1)
    grad_w2 = grad_y.T @ a if needs[2] else None
    if not (needs[0] or needs[1] or needs[3]):
        return None, None, grad_w2, None, grad_b2
    grad_x, grad_w1, grad_b1 = linear_relu_backward(
        grad_y @ w2, x, w1, a, (needs[0], needs[1], needs[3])
    )
    return grad_x, grad_w1, grad_w2, grad_b1, grad_b2
