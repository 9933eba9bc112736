"""Operands whose rows start anywhere are copied into aligned rows where a product is large."""

from __future__ import annotations

import pytest
import torch

from twolayer_kernels.backends.triton import layers

from ..problems import check_exact, dtype_id, fused, integers
from ..shapes import Shape, size_id

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "offset", "every_other"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=dtype_id)
@pytest.mark.parametrize("shape", [Shape(33, 71, 65, 101), Shape(1, 7, 300, 3)], ids=size_id)
def test_copies_are_exact(monkeypatch, shape, dtype, layout):
    monkeypatch.setattr(layers, "_WORTH_A_COPY", 0)
    monkeypatch.setattr("twolayer_kernels.backends.triton.is_narrow", lambda *_: False)
    copied = []
    original = layers._with_aligned_rows

    def watched(t, outer):
        copied.append(t.shape)
        return original(t, outer)

    monkeypatch.setattr(layers, "_with_aligned_rows", watched)
    problem = integers(shape, dtype, layout=layout)
    check_exact(problem, fused(problem, "triton"))
    assert copied
