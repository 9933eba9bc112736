"""Where tensors and arrays lie: cheap extents first, then whether they share an element."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import engine


def extent(t: Any) -> tuple[int, int]:
    """The bytes from the first to the last that a tensor or array on the CPU has."""
    if isinstance(t, Tensor):
        begin, size = t.data_ptr(), t.element_size()
        if t.is_contiguous():
            return begin, begin + size * t.numel()
        shape, strides = t.shape, [size * stride for stride in t.stride()]
    else:
        begin, size = t.__array_interface__["data"][0], t.itemsize
        shape, strides = t.shape, t.strides
    if 0 in shape:
        return begin, begin
    reaches = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    return begin + sum(r for r in reaches if r < 0), begin + size + sum(r for r in reaches if r > 0)


def _array(t: Any) -> Any:
    """A tensor's memory as an array; arrays as they are."""
    if not isinstance(t, Tensor):
        return t
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()]
    plain = torch._neg_view(t.detach()) if t.is_neg() else t.detach()
    return plain.view(kind).numpy()


def share_memory(a: Any, b: Any) -> bool:
    """Whether two tensors or arrays on the CPU have an element's memory in common.

    Args:
        a, b: what of each two one extent reaches into the other.
    """
    return engine.share_memory(_array(a), _array(b))
