"""The network in torch's own differentiable operations: for whatever looks between the layers.

Each is looked up at the call, so that a mode, a tensor's ``__torch_function__`` or a replaced
``torch.nn.functional.linear`` sees what it would see of the plain network.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Gradient = Tensor | None


def linear_relu(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    return torch.relu(F.linear(x, w, b))


def two_layer(x: Tensor, w1: Tensor, w2: Tensor, b1: Tensor | None, b2: Tensor | None) -> Tensor:
    return F.linear(linear_relu(x, w1, b1), w2, b2)


def _masked(grad: Tensor, a: Tensor) -> Tensor:
    """``grad * (a > 0)`` with the gradient of a NaN passing, as in ``torch.relu``."""
    return torch.where(a.detach() <= 0, 0, grad)


def _linear_gradients(
    dh: Tensor, x: Tensor, w: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Gradient, Gradient, Gradient]:
    return (
        dh @ w if needs[0] else None,
        dh.T @ x if needs[1] else None,
        dh.sum(0) if needs[2] else None,
    )


def linear_relu_gradients(
    grad_a: Tensor, x: Tensor, w: Tensor, a: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Gradient, Gradient, Gradient]:
    """Of x, w and b, for ``x`` of two dimensions; ``a`` gives the mask alone."""
    return _linear_gradients(_masked(grad_a, a), x, w, needs)


def two_layer_gradients(
    grad_y: Tensor,
    x: Tensor | None,
    w1: Tensor,
    w2: Tensor,
    a: Tensor,
    needs: tuple[bool, bool, bool, bool, bool],
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    """Of x, w1, w2, b1 and b2, for ``x`` of two dimensions.

    For derivatives of these, ``a`` must be connected to what it was computed from.
    """
    grad_w2 = grad_y.T @ a if needs[2] else None
    grad_b2 = grad_y.sum(0) if needs[4] else None
    if x is None or not (needs[0] or needs[1] or needs[3]):
        return None, None, grad_w2, None, grad_b2
    dh = _masked(grad_y @ w2, a)
    grad_x, grad_w1, grad_b1 = _linear_gradients(dh, x, w1, (needs[0], needs[1], needs[3]))
    return grad_x, grad_w1, grad_w2, grad_b1, grad_b2
