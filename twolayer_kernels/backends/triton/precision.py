"""How exactly float32 is multiplied: torch's switches, in the words of ``tl.dot``."""

from __future__ import annotations

import torch


def tf32_is_allowed() -> bool:
    """Whether torch may round the factors of a float32 product to TF32 (10 bits of mantissa).

    So say ``torch.backends.cuda.matmul.allow_tf32``, ``torch.set_float32_matmul_precision`` and
    ``fp32_precision``; the last reads all three, where the older names refuse a mixture.
    """
    matmul = torch.backends.cuda.matmul
    chosen = matmul.fp32_precision
    if chosen == "none":
        chosen = torch.backends.fp32_precision  # type: ignore[attr-defined]
    return bool(chosen == "tf32")


def precision_of(dtype: torch.dtype) -> str:
    """The precision of the large products in ``dtype`` whose sums are long.

    Without TF32, float32 is multiplied as three TF32 products of the factors' upper and lower
    halves: the error of a float32 product, on the matrix units.
    """
    if dtype != torch.float32:
        return "16bit"
    return "tf32" if tf32_is_allowed() else "tf32x3"


# Up to so many terms the errors of three rounded products have nothing to cancel with: emulated,
# the first bias's gradient of 64x1000x100x10 (K = 10) is 11.4 eps off where 9.0 are allowed. And so
# short a sum gives the matrix units little to do.
_SHORT = 32


def product_precision_of(dtype: torch.dtype, k: int) -> str:
    """The precision of one large product whose sums have ``k`` terms."""
    precision = precision_of(dtype)
    return "ieee" if precision == "tf32x3" and k <= _SHORT else precision


def narrow_precision_of(dtype: torch.dtype) -> str:
    """The precision of the narrow kernels, where calls and not products take the time."""
    if dtype != torch.float32:
        return "16bit"
    return "tf32" if tf32_is_allowed() else "ieee"


def input_precision(precision: str) -> str:
    """The word for ``tl.dot``; 16-bit products are exact in any case."""
    return "ieee" if precision == "16bit" else precision
