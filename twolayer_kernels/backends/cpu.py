"""The compiled CPU kernels on torch tensors: addresses and strides in, new tensors out.

The contract is that of :mod:`twolayer_kernels.backends`. The kernels themselves are in ``csrc/``.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .. import _cpu

Gradient = Tensor | None

_CODES = {
    torch.float32: _cpu.FLOAT32,
    torch.float64: _cpu.FLOAT64,
    torch.bfloat16: _cpu.BFLOAT16,
    torch.float16: _cpu.FLOAT16,
}


def unsupported(device_type: str, dtype: torch.dtype) -> str | None:
    if device_type != "cpu":
        return f"its kernels need tensors on the cpu, got {device_type}"
    if dtype not in _CODES:
        return f"its kernels have no {dtype}"
    return None


def describe() -> str:
    return f"[{_cpu.instruction_set()}]"


@lru_cache(maxsize=4096)
def _features_first(code: int, batch: int, features: int) -> bool:
    return _cpu.features_first(code, batch, features)


def _new_activation(x: Tensor, code: int, batch: int, features: int) -> Tensor:
    """Memory for an activation, in the layout that suits its size."""
    if _features_first(code, batch, features):
        return torch.empty((features, batch), dtype=x.dtype).T
    return torch.empty((batch, features), dtype=x.dtype)


def _empty(rows: int, cols: int, dtype: torch.dtype, wanted: bool) -> Gradient:
    return torch.empty((rows, cols), dtype=dtype) if wanted else None


def _address(t: Gradient) -> int:
    return 0 if t is None else t.data_ptr()


def _plain(t: Tensor) -> Tensor:
    """``t`` with its values in memory: the imaginary part of a conjugate has only a note of -1."""
    return t.resolve_neg() if t.is_neg() else t


def _with_unit_stride(a: Tensor) -> Tensor:
    """``a`` adjacent along rows or columns, as the kernels keep it; hooks may hand back others."""
    return _plain(a) if 1 in a.stride() else a.contiguous()


def linear_relu_forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    x, w = _plain(x), _plain(w)
    b = None if b is None else _plain(b)
    batch, in_features = x.shape
    out_features = w.shape[0]
    a = torch.empty((batch, out_features), dtype=x.dtype)
    _cpu.linear_relu_forward(
        _CODES[x.dtype],
        torch.get_num_threads(),
        batch,
        in_features,
        out_features,
        x.data_ptr(),
        *x.stride(),
        w.data_ptr(),
        *w.stride(),
        *((0, 0) if b is None else (b.data_ptr(), *b.stride())),
        a.data_ptr(),
        out_features,
        1,
    )
    return a


def linear_relu_backward(
    grad_a: Tensor, x: Tensor, w: Tensor, a: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Gradient, Gradient, Gradient]:
    grad_a, x, w, a = _plain(grad_a), _plain(x), _plain(w), _plain(a)
    dtype = grad_a.dtype
    batch, in_features = x.shape
    out_features = w.shape[0]
    grad_x = _empty(batch, in_features, dtype, needs[0])
    grad_w = _empty(out_features, in_features, dtype, needs[1])
    grad_b = torch.empty(out_features, dtype=dtype) if needs[2] else None
    _cpu.linear_relu_backward(
        _CODES[dtype],
        torch.get_num_threads(),
        batch,
        in_features,
        out_features,
        grad_a.data_ptr(),
        *grad_a.stride(),
        x.data_ptr(),
        *x.stride(),
        w.data_ptr(),
        *w.stride(),
        a.data_ptr(),
        *a.stride(),
        _address(grad_x),
        _address(grad_w),
        _address(grad_b),
    )
    return grad_x, grad_w, grad_b


def two_layer_forward(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    b2: Tensor | None,
    keep_activation: bool,
) -> tuple[Tensor, Tensor | None]:
    x, w1, w2 = _plain(x), _plain(w1), _plain(w2)
    b1 = None if b1 is None else _plain(b1)
    b2 = None if b2 is None else _plain(b2)
    dtype = x.dtype
    code = _CODES[dtype]
    batch, in_features = x.shape
    out_features, hidden_features = w2.shape
    a = _new_activation(x, code, batch, hidden_features) if keep_activation else None
    y = torch.empty((batch, out_features), dtype=dtype)
    _cpu.two_layer_forward(
        code,
        torch.get_num_threads(),
        batch,
        in_features,
        hidden_features,
        out_features,
        x.data_ptr(),
        *x.stride(),
        w1.data_ptr(),
        *w1.stride(),
        w2.data_ptr(),
        *w2.stride(),
        *((0, 0) if b1 is None else (b1.data_ptr(), *b1.stride())),
        *((0, 0) if b2 is None else (b2.data_ptr(), *b2.stride())),
        *((0, 0, 0) if a is None else (a.data_ptr(), *a.stride())),
        y.data_ptr(),
    )
    return y, a


def two_layer_backward(
    grad_y: Tensor,
    x: Tensor | None,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    a: Tensor | None,
    needs: tuple[bool, bool, bool, bool, bool],
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    grad_y, w1, w2 = _plain(grad_y), _plain(w1), _plain(w2)
    x = None if x is None else _plain(x)
    b1 = None if b1 is None else _plain(b1)
    a = None if a is None else _with_unit_stride(a)
    dtype = grad_y.dtype
    batch = grad_y.shape[0]
    hidden_features, in_features = w1.shape
    out_features = w2.shape[0]
    grad_x = _empty(batch, in_features, dtype, needs[0])
    grad_w1 = _empty(hidden_features, in_features, dtype, needs[1])
    grad_w2 = _empty(out_features, hidden_features, dtype, needs[2])
    grad_b1 = torch.empty(hidden_features, dtype=dtype) if needs[3] else None
    grad_b2 = torch.empty(out_features, dtype=dtype) if needs[4] else None
    _cpu.two_layer_backward(
        _CODES[dtype],
        torch.get_num_threads(),
        batch,
        in_features,
        hidden_features,
        out_features,
        grad_y.data_ptr(),
        *grad_y.stride(),
        *((0, 0, 0) if x is None else (x.data_ptr(), *x.stride())),
        w1.data_ptr(),
        *w1.stride(),
        w2.data_ptr(),
        *w2.stride(),
        *((0, 0) if b1 is None else (b1.data_ptr(), *b1.stride())),
        *((0, 0, 0) if a is None else (a.data_ptr(), *a.stride())),
        _address(grad_x),
        _address(grad_w1),
        _address(grad_w2),
        _address(grad_b1),
        _address(grad_b2),
    )
    return grad_x, grad_w1, grad_w2, grad_b1, grad_b2
