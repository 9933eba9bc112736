"""Validation at the public edge: what a call may be given, said once, before anything is written.

``TypeError`` is a wrong kind or dtype, ``ValueError`` a wrong shape, device or
option. Each message names the argument, what was needed and what came.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
BACKENDS = ("cpu", "triton", "torch", "reference")


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _check_input(op: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: x must be a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        wanted = ", ".join(map(dtype_name, DTYPES))
        raise TypeError(f"{op}: x must be one of {wanted}, got {dtype_name(x.dtype)}")
    if x.dim() == 0:
        raise ValueError(f"{op}: x must have shape (..., in_features), got a scalar")


def _check_like_input(op: str, name: str, value: Any, x: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype != x.dtype:
        raise TypeError(
            f"{op}: {name} must have x's dtype {dtype_name(x.dtype)}, got {dtype_name(value.dtype)}"
        )
    if value.device != x.device:
        raise ValueError(f"{op}: {name} must be on x's device {x.device}, got {value.device}")


def _check_weight(op: str, name: str, w: Any, x: Tensor, columns: int, meaning: str) -> None:
    _check_like_input(op, name, w, x)
    if w.dim() != 2 or w.shape[1] != columns:
        raise ValueError(
            f"{op}: {name} must have shape ({meaning}) with {meaning.split(', ')[1]} = {columns},"
            f" got {_shape(w)}"
        )


def _check_bias(op: str, name: str, b: Any, x: Tensor, features: int, meaning: str) -> None:
    if b is None:
        return
    _check_like_input(op, name, b, x)
    if b.dim() != 1 or b.shape[0] != features:
        raise ValueError(
            f"{op}: {name} must have shape ({meaning},) = ({features},), got {_shape(b)}"
        )


def check_linear_relu(x: Any, w: Any, b: Any) -> None:
    op = "linear_relu"
    _check_input(op, x)
    _check_weight(op, "w", w, x, x.shape[-1], "out_features, in_features")
    _check_bias(op, "b", b, x, w.shape[0], "out_features")


def check_two_layer(x: Any, w1: Any, w2: Any, b1: Any, b2: Any) -> None:
    op = "two_layer"
    _check_input(op, x)
    _check_weight(op, "w1", w1, x, x.shape[-1], "hidden_features, in_features")
    _check_weight(op, "w2", w2, x, w1.shape[0], "out_features, hidden_features")
    _check_bias(op, "b1", b1, x, w1.shape[0], "hidden_features")
    _check_bias(op, "b2", b2, x, w2.shape[0], "out_features")


def check_backend(backend: Any) -> None:
    if backend is not None and not isinstance(backend, str):
        raise TypeError(f"backend must be None or a str, got {type(backend).__name__}")
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"backend must be None or one of {', '.join(BACKENDS)}, got {backend!r}")


def check_feature_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must be >= 0, got {value}")
