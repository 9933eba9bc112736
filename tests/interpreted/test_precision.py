"""float32 products follow torch's TF32 switches, the older and the newer ones."""

from __future__ import annotations

import pytest
import torch

from twolayer_kernels.backends.triton.precision import (
    input_precision,
    narrow_precision_of,
    precision_of,
    product_precision_of,
)

matmul = torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def switches():
    before = matmul.fp32_precision
    yield
    matmul.fp32_precision = before


SWITCHES = {
    "fp32_precision=ieee": (lambda: setattr(matmul, "fp32_precision", "ieee"), False),
    "fp32_precision=tf32": (lambda: setattr(matmul, "fp32_precision", "tf32"), True),
    "allow_tf32=False": (lambda: setattr(matmul, "allow_tf32", False), False),
    "allow_tf32=True": (lambda: setattr(matmul, "allow_tf32", True), True),
    "highest": (lambda: torch.set_float32_matmul_precision("highest"), False),
    "high": (lambda: torch.set_float32_matmul_precision("high"), True),
    "medium": (lambda: torch.set_float32_matmul_precision("medium"), True),
}


@pytest.mark.filterwarnings("ignore:Please use the new API")
@pytest.mark.parametrize(("switch", "allowed"), SWITCHES.values(), ids=SWITCHES)
def test_tf32_where_torch_allows_it(switch, allowed):
    switch()
    assert precision_of(torch.float32) == ("tf32" if allowed else "tf32x3")
    assert narrow_precision_of(torch.float32) == ("tf32" if allowed else "ieee")
    assert product_precision_of(torch.float32, 1000) == ("tf32" if allowed else "tf32x3")
    assert product_precision_of(torch.float32, 1) == ("tf32" if allowed else "ieee")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_types_have_one_precision(dtype):
    matmul.fp32_precision = "tf32"
    assert precision_of(dtype) == narrow_precision_of(dtype) == "16bit"
    assert product_precision_of(dtype, 1) == "16bit"
    assert input_precision("16bit") == "ieee"
