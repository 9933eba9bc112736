"""The repaired interpreter treats bfloat16 as torch does; without the repair it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from ..comparing import assert_equal
from ..problems import check_exact, fused, integers
from ..shapes import Shape
from . import interpreter


@triton.jit
def cast_kernel(source, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(source + i).to(out.dtype.element_ty))


@triton.jit
def compare_kernel(source, other, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, (tl.load(source + i) <= tl.load(other + i)).to(tl.int8))


@triton.jit
def add_kernel(source, other, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(source + i) + tl.load(other + i))


@triton.jit
def dot_kernel(a, b, out, N: tl.constexpr):
    i = tl.arange(0, N)
    at = i[:, None] * N + i[None, :]
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at)))


def bfloat16s(seed: int) -> torch.Tensor:
    """Every bfloat16 there is, NaN and infinity with them, in a random order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(1 << 16, generator=generator).to(torch.int16).view(torch.bfloat16)


def near_ties() -> torch.Tensor:
    """For every bfloat16: itself, the middle to the next one, and the float32 around both."""
    upper = torch.arange(1 << 16, dtype=torch.int64) << 16
    lower = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x1234, 0xC0DE])
    return (upper[:, None] + lower).flatten().to(torch.int32).view(torch.float32)


def cast(source: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    out = torch.empty(source.shape, dtype=dtype)
    cast_kernel[(1,)](source, out, source.numel())
    return out


def test_float32_is_rounded_to_the_nearest():
    values = near_ties()
    assert_equal("bfloat16", cast(values, torch.bfloat16), values.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_bfloat16_is_widened(dtype):
    values = bfloat16s(1)
    assert_equal("wide", cast(values, dtype), values.to(dtype))


def test_float16_is_rounded():
    values = torch.arange(1 << 16).to(torch.int16).view(torch.float16)
    assert_equal("bfloat16", cast(values, torch.bfloat16), values.to(torch.bfloat16))


def test_comparisons_and_sums():
    left, right = bfloat16s(2), bfloat16s(3)
    out, total = torch.empty(left.shape, dtype=torch.int8), torch.empty_like(left)
    compare_kernel[(1,)](left, right, out, left.numel())
    assert_equal("<=", out, (left <= right).to(torch.int8))
    add_kernel[(1,)](left, right, total, left.numel())
    assert_equal("+", total, left + right)


def test_products():
    generator = torch.Generator().manual_seed(4)
    a, b = (torch.randint(-9, 10, (64, 64), generator=generator) for _ in range(2))
    out = torch.empty(64, 64)
    dot_kernel[(1,)](a.bfloat16(), b.bfloat16(), out, 64)
    assert_equal("a b", out, (a @ b).float())


@pytest.mark.parametrize(
    "test",
    [test_float32_is_rounded_to_the_nearest, test_comparisons_and_sums, test_products],
    ids=lambda test: test.__name__,
)
def test_the_interpreter_alone_is_wrong(monkeypatch, test):
    interpreter.unrepair(monkeypatch)
    with pytest.raises(AssertionError, match="not equal"):
        test()


def test_without_the_repair_the_kernels_are_wrong(path, monkeypatch):
    problem = integers(Shape(33, 70, 65, 10), torch.bfloat16, seed=5)
    check_exact(problem, fused(problem, "triton"))
    interpreter.unrepair(monkeypatch)
    with pytest.raises(AssertionError, match="not equal"):
        check_exact(problem, fused(problem, "triton"))


def test_the_helpers_undo_each_other():
    bits = np.arange(1 << 16, dtype=np.uint16)
    numbers = ~np.isnan(interpreter.widened(bits))
    assert (interpreter.rounded(interpreter.widened(bits)) == bits)[numbers].all()
