"""Which arrays have memory in common: what is trained is written while other things are read."""

from __future__ import annotations

from typing import Any

import numpy as np


def overlaps_itself(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether elements of such an array may have memory in common; strides count elements."""
    if 0 in shape:
        return False
    reach = 1
    for stride, size in sorted((abs(b), a) for a, b in zip(shape, strides, strict=True) if a > 1):
        if stride < reach:
            return True
        reach += stride * (size - 1)
    return False


def share_memory(a: Any, b: Any) -> bool:
    """Whether two arrays have an element's memory in common."""
    return bool(np.may_share_memory(a, b)) and bool(np.shares_memory(a, b))
