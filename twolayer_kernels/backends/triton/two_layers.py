"""Both layers of a narrow network at once: one launch forward, one backward.

At these sizes the host is slower than the GPU, so what follows from sizes and strides alone is
worked out once for each of them and kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .arrivals import counters
from .launch import Prepared, device_of
from .layers import adjacent
from .narrow import narrow_backward_kernel, narrow_forward_kernel
from .plan import plan_backward
from .precision import input_precision, narrow_precision_of
from .tiles import NarrowTile, alignment, ceil_div, choose_narrow, padded_out_features

Gradient = Tensor | None
Sizes = tuple[int, int, int, int]  # batch, in_features, hidden_features, out_features
Needs = tuple[bool, bool, bool, bool, bool]

# Sizes and strides of which a process keeps what follows from them.
_KEPT = 1024


class _Shared(NamedTuple):
    """A launch, and what its programs share: nothing for one part."""

    launch: Prepared
    shape: tuple[int, ...]  # of the float32 in which parts leave their sums
    counters: int


def _constants(
    sizes: Sizes, strides: tuple[tuple[int, ...], ...], precision: str, tile: NarrowTile
) -> tuple[object, ...]:
    _, in_features, hidden_features, out_features = sizes
    return (
        *(in_features, hidden_features, out_features),
        *(alignment(row) for row, _ in strides),
        input_precision(precision),
        *(tile.block_b, tile.block_h, tile.block_k, padded_out_features(out_features)),
    )


@lru_cache(maxsize=_KEPT)
def _prepared_forward(
    tile: NarrowTile,
    parts: int,
    precision: str,
    sizes: Sizes,
    dtype: torch.dtype,
    there: tuple[bool, bool, bool],
    *strides: tuple[int, ...],
) -> _Shared:
    """For these strides of x, w1 and w2; ``there``: b1, b2 and the activation (see `Prepared`)."""
    batch, _, _, out_features = sizes
    blocks = ceil_div(batch, tile.block_b)
    launch = Prepared(
        narrow_forward_kernel,
        (blocks, parts),
        (*(stride for pair in strides for stride in pair), batch, parts),
        _constants(sizes, strides, precision, tile),
        tile.how,
    )
    return _Shared(launch, (parts, batch, out_features), blocks)


def _shared(
    work: _Shared, parts: int, device: torch.device
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Where parts leave their sums, and count their arrivals."""
    if parts == 1:
        return None, None
    shares = torch.empty(work.shape, dtype=torch.float32, device=device)
    return shares, counters(device, work.counters)


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
    (batch, in_features), (out_features, hidden_features) = x.shape, w2.shape
    dtype, device = x.dtype, x.device
    sizes = batch, in_features, hidden_features, out_features
    precision = narrow_precision_of(dtype)
    tile, parts = choose_narrow("narrow_forward", precision, device_of(x), *sizes)
    there = b1 is not None, b2 is not None, keep_activation
    strides = x.stride(), w1.stride(), w2.stride()
    work = _prepared_forward(tile, parts, precision, sizes, dtype, there, *strides)
    y = torch.empty(batch, out_features, dtype=dtype, device=device)
    a = torch.empty(batch, hidden_features, dtype=dtype, device=device) if keep_activation else None
    contributions, arrived = _shared(work, parts, device)
    work.launch.start(x, w1, w2, b1, b2, a, y, contributions, arrived)
    return y, a


@lru_cache(maxsize=_KEPT)
def _prepared_backward(
    tile: NarrowTile,
    parts: int,
    precision: str,
    sizes: Sizes,
    dtype: torch.dtype,
    needs: Needs,
    *strides: tuple[int, ...],
) -> _Shared:
    """For these strides of dy, x, w1 and w2."""
    plan = plan_backward(*sizes, needs, (tile.block_b, tile.block_h, tile.block_k), parts)
    launch = Prepared(
        narrow_backward_kernel,
        (plan.programs,),
        (
            *(stride for pair in strides for stride in pair),
            *(sizes[0], parts, plan.of_first, plan.of_second),
        ),
        _constants(sizes, strides, precision, tile),
        tile.how,
    )
    return _Shared(launch, (parts, plan.share_size), plan.counters)


def backward(
    grad_y: Tensor,
    x: Tensor | None,
    w1: Tensor,
    w2: Tensor,
    a: Tensor,
    needs: Needs,
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    """The gradients that are needed, of x, w1, w2, b1 and b2."""
    batch, out_features = grad_y.shape
    hidden_features, in_features = w1.shape
    dtype, device = grad_y.dtype, grad_y.device
    sizes = batch, in_features, hidden_features, out_features
    precision = narrow_precision_of(dtype)
    tile, parts = choose_narrow("narrow_backward", precision, device_of(grad_y), *sizes)
    x = grad_y if x is None else x  # then no program reads it
    a = a if a.is_contiguous() else a.contiguous()
    strides = grad_y.stride(), x.stride(), w1.stride(), w2.stride()
    work = _prepared_backward(tile, parts, precision, sizes, dtype, needs, *strides)

    def new(needed: bool, *shape: int) -> Gradient:
        return torch.empty(shape, dtype=dtype, device=device) if needed else None

    gradients = (
        new(needs[0], batch, in_features),
        new(needs[1], hidden_features, in_features),
        new(needs[2], out_features, hidden_features),
        new(needs[3], hidden_features),
        new(needs[4], out_features),
    )
    work.launch.start(grad_y, x, w1, w2, a, *gradients, *_shared(work, parts, device))
    return gradients


def forget_prepared() -> None:
    """What was prepared holds kernels that were compiled for a device."""
    _prepared_forward.cache_clear()
    _prepared_backward.cache_clear()
