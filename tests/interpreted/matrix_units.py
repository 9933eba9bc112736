"""``tl.dot`` on float32 as a GPU computes it: rounded factors, sums cut towards zero, long chains.

NumPy's product, which the interpreter takes, is more exact than any of these, so budgets that hold
with it need not hold on a GPU.
"""

from __future__ import annotations

import numpy as np
from triton._C.libtriton import ir
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

# So many terms are added at once, exactly; then the sum loses what float32 does not hold.
_TERMS = 8


def to_tf32(values: np.ndarray) -> np.ndarray:
    """Rounded to 10 bits of mantissa, ties away from zero, as ``cvt.rna.tf32.f32`` does."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + 0x1000) & 0xFFFFE000).view(np.float32)
    return np.where(np.isfinite(values), rounded, values)


def cut_to_float32(values: np.ndarray) -> np.ndarray:
    """float64 to float32, towards zero."""
    nearest = values.astype(np.float32)
    too_far = np.abs(nearest.astype(np.float64)) > np.abs(values)
    return np.where(too_far, np.nextafter(nearest, np.float32(0)), nearest)


def _matrix_unit(a: np.ndarray, b: np.ndarray, acc: np.ndarray) -> np.ndarray:
    """``acc + a b`` for factors that are TF32 already."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    for k in range(0, a.shape[1], _TERMS):
        acc = cut_to_float32(acc + wide_a[:, k : k + _TERMS] @ wide_b[k : k + _TERMS])
    return acc


def tf32(a: np.ndarray, b: np.ndarray, acc: np.ndarray) -> np.ndarray:
    return _matrix_unit(to_tf32(a), to_tf32(b), acc)


def tf32x3(a: np.ndarray, b: np.ndarray, acc: np.ndarray) -> np.ndarray:
    """Three products of upper and lower halves, and one addition, as triton 3.6 writes it."""
    upper_a, upper_b = to_tf32(a), to_tf32(b)
    lower_a, lower_b = to_tf32(a - upper_a), to_tf32(b - upper_b)
    total = _matrix_unit(lower_a, upper_b, np.zeros_like(acc))
    total = _matrix_unit(upper_a, lower_b, total)
    total = np.where(np.isnan(total), np.float32(0), total)
    return acc + _matrix_unit(upper_a, upper_b, total)


def fused_multiply_add(a: np.ndarray, b: np.ndarray, acc: np.ndarray) -> np.ndarray:
    """One chain over K, rounded once a term."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    for k in range(a.shape[1]):
        acc = (acc + wide_a[:, k, None] * wide_b[k]).astype(np.float32)
    return acc


_UNITS = {
    ir.INPUT_PRECISION.TF32: tf32,
    ir.INPUT_PRECISION.TF32x3: tf32x3,
    ir.INPUT_PRECISION.IEEE: fused_multiply_add,
}


def emulate(monkeypatch) -> list[str]:
    """float32 products as a GPU's; the list fills with the names of what multiplied."""
    used, create_dot = [], InterpreterBuilder.create_dot

    def dot(builder, a, b, d, precision, *rest):
        if a.dtype.scalar.name != "fp32":
            return create_dot(builder, a, b, d, precision, *rest)
        unit = _UNITS[precision]
        used.append(unit.__name__)
        return TensorHandle(unit(a.data, b.data, d.data), d.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", dot)
    return used
