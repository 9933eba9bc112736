"""Validation at the public edge: what a call may be given, said once, before anything is written.

``TypeError`` is a wrong kind or dtype, ``ValueError`` a wrong shape, device or
option. Each message names the argument, what was needed and what came. The
rules are the same for torch tensors and NumPy arrays, so neither is imported.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, NamedTuple

BACKENDS = ("cpu", "triton", "torch", "reference")


def dtype_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


class ArrayChecks(NamedTuple):
    """The rules for the arrays of one library: their type and the dtypes that have kernels."""

    array_type: Any
    type_name: str
    dtypes: tuple[Any, ...]
    layout: Any = None  # the only layout with kernels, where the library has several
    refused: tuple[type, ...] = ()  # kinds of arrays that hold more than their elements

    def linear_relu(self, x: Any, w: Any, b: Any) -> None:
        op = "linear_relu"
        self._input(op, x)
        self._weight(op, "w", w, x, x.shape[-1], "out_features, in_features")
        self._bias(op, "b", b, x, w.shape[0], "out_features")

    def two_layer(self, x: Any, w1: Any, w2: Any, b1: Any, b2: Any) -> None:
        if self._two_layer_fits(x, w1, w2, b1, b2):
            return
        op = "two_layer"
        self._input(op, x)
        self._weight(op, "w1", w1, x, x.shape[-1], "hidden_features, in_features")
        self._weight(op, "w2", w2, x, w1.shape[0], "out_features, hidden_features")
        self._bias(op, "b1", b1, x, w1.shape[0], "hidden_features")
        self._bias(op, "b2", b2, x, w2.shape[0], "out_features")

    def _two_layer_fits(self, x: Any, w1: Any, w2: Any, b1: Any, b2: Any) -> bool:
        """Whether all is right, in a fifth of the time that finding out what is wrong takes."""
        try:
            dtype, device = x.dtype, x.device
            hidden_features, in_features = w1.shape
            out_features, columns = w2.shape
            layout = self.layout
            # Of kinds that hold more than their elements the search for what is wrong asks.
            exact = self.array_type if self.refused else None
            return (
                (isinstance(x, self.array_type) if exact is None else type(x) is exact)
                and (exact is None or type(w1) is type(w2) is exact)
                and dtype in self.dtypes
                and (layout is None or (x.layout is layout and w1.layout is layout))
                and (layout is None or w2.layout is layout)
                and x.shape[-1] == in_features
                and columns == hidden_features
                and w1.dtype is dtype
                and w2.dtype is dtype
                and w1.device == device
                and w2.device == device
                and (
                    b1 is None
                    or (
                        (exact is None or type(b1) is exact)
                        and b1.dtype is dtype
                        and b1.device == device
                        and b1.shape == (hidden_features,)
                        and (layout is None or b1.layout is layout)
                    )
                )
                and (
                    b2 is None
                    or (
                        (exact is None or type(b2) is exact)
                        and b2.dtype is dtype
                        and b2.device == device
                        and b2.shape == (out_features,)
                        and (layout is None or b2.layout is layout)
                    )
                )
            )
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return False

    def like(self, op: str, name: str, value: Any, x: Any, shape: tuple[int, ...]) -> None:
        """``value`` must have x's dtype and device and exactly this shape."""
        self._like_input(op, name, value, x)
        if tuple(value.shape) != shape:
            raise ValueError(f"{op}: {name} must have shape {shape}, got {tuple(value.shape)}")

    def kind(self, op: str, name: str, value: Any) -> None:
        if isinstance(value, self.refused):
            raise TypeError(
                f"{op}: {name} must be a plain {self.type_name}, got {type(value).__name__}"
            )
        if not isinstance(value, self.array_type):
            raise TypeError(f"{op}: {name} must be a {self.type_name}, got {type(value).__name__}")
        try:
            _ = getattr(value, "shape", None)
        except RuntimeError as error:
            raise TypeError(f"{op}: {name} must have a shape: {error}") from error

    def _input(self, op: str, x: Any) -> None:
        self.kind(op, "x", x)
        if x.dtype not in self.dtypes:
            wanted = ", ".join(map(dtype_name, self.dtypes))
            raise TypeError(f"{op}: x must be one of {wanted}, got {dtype_name(x.dtype)}")
        self._layout(op, "x", x)
        if len(x.shape) == 0:
            raise ValueError(f"{op}: x must have shape (..., in_features), got a scalar")

    def _layout(self, op: str, name: str, value: Any) -> None:
        if self.layout is not None and value.layout is not self.layout:
            raise TypeError(
                f"{op}: {name} must be {dtype_name(self.layout)}, got {dtype_name(value.layout)}"
            )

    def _like_input(self, op: str, name: str, value: Any, x: Any) -> None:
        self.kind(op, name, value)
        self._layout(op, name, value)
        if value.dtype != x.dtype:
            raise TypeError(
                f"{op}: {name} must have x's dtype {dtype_name(x.dtype)},"
                f" got {dtype_name(value.dtype)}"
            )
        device, wanted = getattr(value, "device", "cpu"), getattr(x, "device", "cpu")
        if device != wanted:
            raise ValueError(f"{op}: {name} must be on x's device {wanted}, got {device}")

    def _weight(self, op: str, name: str, w: Any, x: Any, columns: int, meaning: str) -> None:
        self._like_input(op, name, w, x)
        if len(w.shape) != 2 or w.shape[1] != columns:
            raise ValueError(
                f"{op}: {name} must have shape ({meaning}) with"
                f" {meaning.split(', ')[1]} = {columns}, got {tuple(w.shape)}"
            )

    def _bias(self, op: str, name: str, b: Any, x: Any, features: int, meaning: str) -> None:
        if b is None:
            return
        self._like_input(op, name, b, x)
        if tuple(b.shape) != (features,):
            raise ValueError(
                f"{op}: {name} must have shape ({meaning},) = ({features},), got {tuple(b.shape)}"
            )


def check_backend(backend: Any) -> None:
    if backend is not None and not isinstance(backend, str):
        raise TypeError(f"backend must be None or a str, got {type(backend).__name__}")
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"backend must be None or one of {', '.join(BACKENDS)}, got {backend!r}")


def check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {type(value).__name__}")


def check_needs(op: str, needs: Any, names: tuple[str, ...]) -> None:
    if not isinstance(needs, (tuple, list)) or len(needs) != len(names):
        came = len(needs) if isinstance(needs, (tuple, list)) else type(needs).__name__
        raise ValueError(
            f"{op}: needs must hold {len(names)} bools, for {', '.join(names)}, got {came}"
        )


def check_feature_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must be >= 0, got {value}")


def check_count(op: str, name: str, value: Any) -> int | None:
    """A count as Python's int, in which sums do not wrap; ``None`` stays."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{op}: {name} must be >= 1, got {value}")
    return int(value)


def is_real(value: Any) -> bool:
    """Whether it is a number that float64 holds."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def check_smoothing(op: str, smoothing: Any) -> None:
    if not is_real(smoothing):
        raise TypeError(f"{op}: label_smoothing must be a number, got {smoothing!r}")
    if not 0 <= float(smoothing) <= 1:
        raise ValueError(f"{op}: label_smoothing must be from 0 to 1, got {smoothing}")


def check_penalty(op: str, penalty: Any) -> None:
    if not is_real(penalty):
        raise TypeError(f"{op}: l2_penalty must be a number, got {penalty!r}")
    if not math.isfinite(penalty):
        raise ValueError(f"{op}: l2_penalty must be finite, got {penalty}")


def check_callback(op: str, name: str, callback: Any) -> None:
    if callback is not None and not callable(callback):
        raise TypeError(f"{op}: {name} must be callable, got {type(callback).__name__}")


def check_classes(op: str, classes: Any, outputs: int, ignored: int) -> None:
    """Classes must be below ``outputs``; the first that is not is named with its row."""
    wrong = ((classes < 0) | (classes >= outputs)) & (classes != ignored)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{op}: y must hold classes from 0 to {outputs - 1}, got {int(classes[row])} in row"
            f" {row}"
        )
