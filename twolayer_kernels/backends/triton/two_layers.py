"""Both layers of a narrow network at once: one launch forward, one backward."""

from __future__ import annotations

import torch
from torch import Tensor

from .arrivals import counters
from .launch import device_of, launch
from .layers import adjacent
from .narrow import narrow_backward_kernel, narrow_forward_kernel
from .plan import plan_backward
from .precision import input_precision, narrow_precision_of
from .tiles import alignment, ceil_div, choose_narrow, padded_out_features

Gradient = Tensor | None


def forward(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    b2: Tensor | None,
    keep_activation: bool,
) -> tuple[Tensor, Tensor | None]:
    """``y`` (batch, out_features), and the activation (batch, hidden_features) where it is kept."""
    b1, b2 = adjacent(b1), adjacent(b2)
    (batch, in_features), hidden_features, out_features = x.shape, w1.shape[0], w2.shape[0]
    precision = narrow_precision_of(x.dtype)
    tile, parts = choose_narrow(
        "narrow_forward", precision, device_of(x), batch, in_features, hidden_features, out_features
    )
    y = torch.empty(batch, out_features, dtype=x.dtype, device=x.device)
    a = None
    if keep_activation:
        a = torch.empty(batch, hidden_features, dtype=x.dtype, device=x.device)
    blocks = ceil_div(batch, tile.block_b)
    contributions = arrived = None
    if parts > 1:
        contributions = torch.empty(
            parts, batch, out_features, dtype=torch.float32, device=x.device
        )
        arrived = counters(x.device, blocks)
    launch(
        narrow_forward_kernel,
        (blocks, parts),
        (
            *(x, x.stride(0), x.stride(1)),
            *(w1, w1.stride(0), w1.stride(1)),
            *(w2, w2.stride(0), w2.stride(1)),
            *(b1, b2, a, y, contributions, arrived, batch, parts),
        ),
        (
            *(in_features, hidden_features, out_features),
            *(alignment(t.stride(0)) for t in (x, w1, w2)),
            input_precision(precision),
            *(tile.block_b, tile.block_h, tile.block_k, padded_out_features(out_features)),
        ),
        tile.how,
    )
    return y, a


def backward(
    grad_y: Tensor,
    x: Tensor | None,
    w1: Tensor,
    w2: Tensor,
    a: Tensor,
    needs: tuple[bool, bool, bool, bool, bool],
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    """The gradients that are needed, of x, w1, w2, b1 and b2."""
    batch, out_features = grad_y.shape
    hidden_features, in_features = w1.shape
    precision = narrow_precision_of(grad_y.dtype)
    tile, parts = choose_narrow(
        "narrow_backward",
        precision,
        device_of(grad_y),
        batch,
        in_features,
        hidden_features,
        out_features,
    )

    def new(needed: bool, *shape: int) -> Gradient:
        return torch.empty(shape, dtype=grad_y.dtype, device=grad_y.device) if needed else None

    grad_x = new(needs[0], batch, in_features)
    grad_w1 = new(needs[1], hidden_features, in_features)
    grad_w2 = new(needs[2], out_features, hidden_features)
    grad_b1 = new(needs[3], hidden_features)
    grad_b2 = new(needs[4], out_features)
    x = grad_y if x is None else x  # then no program reads it
    a = a if a.is_contiguous() else a.contiguous()

    sizes = (batch, in_features, hidden_features, out_features)
    plan = plan_backward(*sizes, needs, (tile.block_b, tile.block_h, tile.block_k), parts)
    shares = arrived = None
    if parts > 1:
        shares = torch.empty(parts, plan.share_size, dtype=torch.float32, device=grad_y.device)
        arrived = counters(grad_y.device, plan.counters)
    launch(
        narrow_backward_kernel,
        (plan.programs,),
        (
            *(grad_y, grad_y.stride(0), grad_y.stride(1)),
            *(x, x.stride(0), x.stride(1)),
            *(w1, w1.stride(0), w1.stride(1)),
            *(w2, w2.stride(0), w2.stride(1)),
            *(a, grad_x, grad_w1, grad_w2, grad_b1, grad_b2, shares, arrived),
            *(batch, parts, plan.of_first, plan.of_second),
        ),
        (
            *(in_features, hidden_features, out_features),
            *(alignment(t.stride(0)) for t in (grad_y, x, w1, w2)),
            input_precision(precision),
            *(tile.block_b, tile.block_h, tile.block_k, padded_out_features(out_features)),
        ),
        tile.how,
    )
    return grad_x, grad_w1, grad_w2, grad_b1, grad_b2
