"""Torch's bfloat16 products without what oneDNN does wrong on Intel's matrix unit (AMX).

There it reads the elements behind a row whose length is no multiple of 32, and multiplies them by
zero: NaN and infinity spread to the row before them, also out of memory that is no part of the
tensor. Seen with torch 2.13 (oneDNN 3.x); uxlfoundation/oneDNN#5717.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.functional import linear


@functools.cache
def reads_behind_rows() -> bool:
    between = torch.full((32, 100), float("nan"), dtype=torch.bfloat16)
    rows = between[:, :70]
    rows.fill_(1.0)
    weight = torch.ones(16, 70, dtype=torch.bfloat16)
    return bool(linear(rows, weight).isnan().any())


@contextmanager
def sound_torch(dtype: torch.dtype) -> Iterator[None]:
    """Torch's own products in the place of oneDNN's, where those are wrong."""
    if dtype != torch.bfloat16 or not reads_behind_rows():
        yield
        return
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)
