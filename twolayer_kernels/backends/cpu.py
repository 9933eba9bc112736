"""The compiled CPU kernels on torch tensors: tensors in, new tensors out.

The contract is that of :mod:`twolayer_kernels.backends`. The kernels themselves are in ``csrc/``.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .. import _cpu

Gradient = Tensor | None

CHECKS_ARGUMENTS = True
ADDS_TO_MAIN_GRAD = False

try:
    _cpu.use_exchange_api(torch.Tensor.__dlpack_c_exchange_api__)
except AttributeError as error:
    raise ImportError(
        f"twolayer_kernels reads tensors as torch 2.11 and newer hand them out, got torch"
        f" {torch.__version__}"
    ) from error

_DTYPES = {
    torch.float32: _cpu.DType.float32,
    torch.float64: _cpu.DType.float64,
    torch.bfloat16: _cpu.DType.bfloat16,
    torch.float16: _cpu.DType.float16,
}


def unsupported(device_type: str, dtype: torch.dtype) -> str | None:
    if device_type != "cpu":
        return f"its kernels need tensors on the cpu, got {device_type}"
    if dtype not in _DTYPES:
        return f"its kernels have no {dtype}"
    return None


def describe(dtype: torch.dtype, sizes: tuple[int, int, int, int] | None) -> str:
    return f"[{_cpu.instruction_set()}]"


@lru_cache(maxsize=4096)
def _features_first(dtype: torch.dtype, *sizes: int) -> bool:
    return _cpu.features_first(_DTYPES[dtype], *sizes)


def _new_activation(x: Tensor, hidden_features: int, out_features: int) -> Tensor:
    """Memory for the activation of ``x``, in the layout that suits a network of these sizes."""
    batch, in_features = x.shape
    if _features_first(x.dtype, batch, in_features, hidden_features, out_features):
        # Not the transpose of another tensor: autograd spends 5 us on keeping a view.
        return x.new_empty_strided((batch, hidden_features), (1, max(1, batch)))
    return x.new_empty(batch, hidden_features)


def _new_gradient(t: Tensor) -> Tensor:
    """Contiguous memory for the gradient of ``t``."""
    # Of torch's ways to allocate, the fastest for a shape that is there already; it keeps the
    # strides, hence the question. For numbers, which are best passed one by one, new_empty is.
    return torch.empty_like(t) if t.is_contiguous() else t.new_empty(t.shape)


def _plain(t: Tensor) -> Tensor:
    """``t`` with its values in memory: the imaginary part of a conjugate has only a note of -1.

    Written out below where two layers' tensors are asked: in half its time.
    """
    return t.resolve_neg() if t.is_neg() else t


def _with_unit_stride(a: Tensor) -> Tensor:
    """``a`` adjacent along rows or columns, as the kernels keep it; hooks may hand back others."""
    return _plain(a) if 1 in a.stride() else a.contiguous()


def linear_relu_forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    a = x.new_empty(x.shape[0], w.shape[0])
    b = None if b is None else _plain(b)
    _cpu.linear_relu_forward(torch.get_num_threads(), _plain(x), _plain(w), b, a)
    return a


def linear_relu_backward(
    grad_a: Tensor, x: Tensor, w: Tensor, a: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Gradient, Gradient, Gradient]:
    grad_x = _new_gradient(x) if needs[0] else None
    grad_w = _new_gradient(w) if needs[1] else None
    grad_b = w.new_empty(w.shape[0]) if needs[2] else None
    _cpu.linear_relu_backward(
        torch.get_num_threads(),
        _plain(grad_a),
        _plain(x),
        _plain(w),
        _plain(a),
        grad_x,
        grad_w,
        grad_b,
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
    out_features, hidden_features = w2.shape
    a = _new_activation(x, hidden_features, out_features) if keep_activation else None
    y = x.new_empty(x.shape[0], out_features)
    x = x.resolve_neg() if x.is_neg() else x
    w1 = w1.resolve_neg() if w1.is_neg() else w1
    w2 = w2.resolve_neg() if w2.is_neg() else w2
    b1 = b1 if b1 is None or not b1.is_neg() else b1.resolve_neg()
    b2 = b2 if b2 is None or not b2.is_neg() else b2.resolve_neg()
    _cpu.two_layer_forward(torch.get_num_threads(), x, w1, w2, b1, b2, a, y)
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
    grad_x = grad_y.new_empty(grad_y.shape[0], w1.shape[1]) if needs[0] else None
    grad_w1 = _new_gradient(w1) if needs[1] else None
    grad_w2 = _new_gradient(w2) if needs[2] else None
    grad_b1 = grad_y.new_empty(w1.shape[0]) if needs[3] else None
    grad_b2 = grad_y.new_empty(w2.shape[0]) if needs[4] else None
    _cpu.two_layer_backward(
        torch.get_num_threads(),
        grad_y.resolve_neg() if grad_y.is_neg() else grad_y,
        x if x is None or not x.is_neg() else x.resolve_neg(),
        w1.resolve_neg() if w1.is_neg() else w1,
        w2.resolve_neg() if w2.is_neg() else w2,
        b1 if b1 is None or not b1.is_neg() else b1.resolve_neg(),
        None if a is None else _with_unit_stride(a),
        grad_x,
        grad_w1,
        grad_w2,
        grad_b1,
        grad_b2,
    )
    return grad_x, grad_w1, grad_w2, grad_b1, grad_b2
