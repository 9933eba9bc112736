"""Forward and backward on NumPy arrays."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _cpu
from ..checks import ArrayChecks, check_needs
from .threads import get_num_threads

Array = NDArray[Any]
Gradient = Array | None

DTYPES = {
    np.dtype(np.float32): _cpu.DType.float32,
    np.dtype(np.float64): _cpu.DType.float64,
    np.dtype(np.float16): _cpu.DType.float16,
}
CHECKS = ArrayChecks(np.ndarray, "numpy.ndarray", tuple(DTYPES), refused=(np.ma.MaskedArray,))


def regular(array: Array) -> Array:
    """``array``, or a copy where its elements do not lie whole elements apart."""
    itemsize = array.itemsize
    if array.flags.aligned and all(stride % itemsize == 0 for stride in array.strides):
        return array
    return array.copy()


def _matrix(array: Array) -> Array:
    """``array`` with its leading dimensions as one."""
    if array.ndim != 2:
        array = array.reshape(prod(array.shape[:-1]), array.shape[-1])
    return regular(array)


def _new(shape: tuple[int, ...], like: Array, wanted: bool) -> Gradient:
    return np.empty(shape, like.dtype) if wanted else None


def _with_shape(array: Gradient, shape: tuple[int, ...]) -> Gradient:
    return array if array is None or array.shape == shape else array.reshape(shape)


def linear_relu(x: Array, w: Array, b: Array | None = None) -> Array:
    """``a = relu(x w^T + b)``.

    Args:
        x: ``(..., in_features)``; float32, float64 or float16, any strides.
        w: ``(out_features, in_features)``, dtype of ``x``.
        b: ``(out_features,)`` or ``None``.

    Returns:
        ``(..., out_features)``, dtype of ``x``. NaN stays NaN.

    Raises:
        TypeError: an argument is no array, or of another dtype.
        ValueError: a shape does not fit.

    Example:
        >>> import numpy as np
        >>> from twolayer_kernels.numpy import linear_relu
        >>> linear_relu(np.array([[1.0, -2.0]]), np.eye(2))
        array([[1., 0.]])
    """
    CHECKS.linear_relu(x, w, b)
    rows = _matrix(x)
    a = np.empty((rows.shape[0], w.shape[0]), x.dtype)
    _cpu.linear_relu_forward(
        get_num_threads(), rows, regular(w), None if b is None else regular(b), a
    )
    return a if x.ndim == 2 else a.reshape(*x.shape[:-1], w.shape[0])


def linear_relu_backward(
    grad_a: Array,
    x: Array,
    w: Array,
    a: Array,
    needs: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Gradient, Gradient, Gradient]:
    """Gradients of :func:`linear_relu` by the chain rule.

    ``dh = grad_a * (a > 0)``, ``dx = dh w``, ``dw = dh^T x``, ``db = sum dh``.

    Args:
        grad_a: ``(..., out_features)``, the gradient of the loss by ``a``.
        x, w: as given to :func:`linear_relu`.
        a: its result.
        needs: which of the gradients of ``x``, ``w`` and ``b`` are computed; ``None`` for others.

    Returns:
        The gradients of ``x``, ``w`` and ``b``, in their shapes.

    Raises:
        TypeError, ValueError: as for :func:`linear_relu`.

    Example:
        >>> import numpy as np
        >>> from twolayer_kernels.numpy import linear_relu, linear_relu_backward
        >>> x, w = np.array([[1.0, -2.0]]), np.eye(2)
        >>> linear_relu_backward(np.ones((1, 2)), x, w, linear_relu(x, w))[2]
        array([1., 0.])
    """
    op = "linear_relu_backward"
    check_needs(op, needs, ("x", "w", "b"))
    CHECKS.linear_relu(x, w, None)
    out_features = w.shape[0]
    for name, value in (("grad_a", grad_a), ("a", a)):
        CHECKS.like(op, name, value, x, (*x.shape[:-1], out_features))
    rows = _matrix(x)
    grad_x = _new(rows.shape, x, needs[0])
    grad_w = _new(w.shape, x, needs[1])
    grad_b = _new((out_features,), x, needs[2])
    _cpu.linear_relu_backward(
        get_num_threads(), _matrix(grad_a), rows, regular(w), _matrix(a), grad_x, grad_w, grad_b
    )
    return _with_shape(grad_x, x.shape), grad_w, grad_b


def _forward(
    x: Array, w1: Array, w2: Array, b1: Array | None, b2: Array | None, keep_activation: bool
) -> tuple[Array, Gradient]:
    CHECKS.two_layer(x, w1, w2, b1, b2)
    rows = _matrix(x)
    (batch, in_features), (out_features, hidden_features) = rows.shape, w2.shape
    a: Gradient = None
    if keep_activation and _cpu.features_first(
        DTYPES[x.dtype], batch, in_features, hidden_features, out_features
    ):
        a = np.empty((hidden_features, batch), x.dtype).T
    elif keep_activation:
        a = np.empty((batch, hidden_features), x.dtype)
    y = np.empty((batch, out_features), x.dtype)
    b1 = None if b1 is None else regular(b1)
    b2 = None if b2 is None else regular(b2)
    _cpu.two_layer_forward(get_num_threads(), rows, regular(w1), regular(w2), b1, b2, a, y)
    return y if x.ndim == 2 else y.reshape(*x.shape[:-1], out_features), a


def two_layer(
    x: Array, w1: Array, w2: Array, b1: Array | None = None, b2: Array | None = None
) -> Array:
    """Two linear layers with a ReLU between them: ``y = relu(x w1^T + b1) w2^T + b2``.

    Args:
        x: ``(..., in_features)``; float32, float64 or float16, any strides.
        w1: ``(hidden_features, in_features)``, dtype of ``x``.
        w2: ``(out_features, hidden_features)``, dtype of ``x``.
        b1: ``(hidden_features,)`` or ``None``.
        b2: ``(out_features,)`` or ``None``.

    Returns:
        ``(..., out_features)``, dtype of ``x``.

    Raises:
        TypeError: an argument is no array, or of another dtype.
        ValueError: a shape does not fit.

    Example:
        >>> import numpy as np
        >>> from twolayer_kernels.numpy import two_layer
        >>> two_layer(np.ones((2, 3)), np.ones((4, 3)), np.ones((1, 4)))
        array([[12.],
               [12.]])
    """
    return _forward(x, w1, w2, b1, b2, False)[0]


def two_layer_forward(
    x: Array, w1: Array, w2: Array, b1: Array | None = None, b2: Array | None = None
) -> tuple[Array, Array]:
    """:func:`two_layer` that also returns the activation, for :func:`two_layer_backward`.

    Returns:
        ``y`` of shape ``(..., out_features)`` and ``a = relu(x w1^T + b1)`` of shape
        ``(rows, hidden_features)``, its leading dimensions as one, in either memory order.

    Example:
        >>> import numpy as np
        >>> from twolayer_kernels.numpy import two_layer_forward
        >>> two_layer_forward(np.ones((1, 3)), np.ones((4, 3)), np.ones((1, 4)))[1]
        array([[3., 3., 3., 3.]])
    """
    y, a = _forward(x, w1, w2, b1, b2, True)
    assert a is not None
    return y, a


def two_layer_backward(
    grad_y: Array,
    x: Array,
    w1: Array,
    w2: Array,
    b1: Array | None,
    a: Array | None,
    needs: tuple[bool, bool, bool, bool, bool] = (True, True, True, True, True),
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    """Gradients of :func:`two_layer` by the chain rule.

    ``dh = (dy w2) * (a > 0)``, ``dx = dh w1``, ``dw1 = dh^T x``, ``dw2 = dy^T a``,
    ``db1 = sum dh``, ``db2 = sum dy``.

    Args:
        grad_y: ``(..., out_features)``, the gradient of the loss by ``y``.
        x, w1, w2, b1: as given to :func:`two_layer`.
        a: the activation from :func:`two_layer_forward`; ``None`` computes it again.
        needs: which of the gradients of ``x``, ``w1``, ``w2``, ``b1`` and ``b2`` are computed.

    Returns:
        The gradients of ``x``, ``w1``, ``w2``, ``b1`` and ``b2``, in their shapes; ``None`` where
        not needed.

    Raises:
        TypeError, ValueError: as for :func:`two_layer`.

    Example:
        >>> import numpy as np
        >>> from twolayer_kernels.numpy import two_layer_backward, two_layer_forward
        >>> x, w1, w2 = np.ones((1, 3)), np.ones((4, 3)), np.ones((1, 4))
        >>> y, a = two_layer_forward(x, w1, w2)
        >>> two_layer_backward(np.ones_like(y), x, w1, w2, None, a)[2]
        array([[3., 3., 3., 3.]])
    """
    op = "two_layer_backward"
    check_needs(op, needs, ("x", "w1", "w2", "b1", "b2"))
    CHECKS.two_layer(x, w1, w2, b1, None)
    rows = _matrix(x)
    out_features, hidden_features = w2.shape
    CHECKS.like(op, "grad_y", grad_y, x, (*x.shape[:-1], out_features))
    if a is not None:
        CHECKS.like(op, "a", a, x, (rows.shape[0], hidden_features))
        a = regular(a)
        if a.itemsize not in a.strides:
            a = np.ascontiguousarray(a)
    grad_x = _new(rows.shape, x, needs[0])
    grad_w1 = _new(w1.shape, x, needs[1])
    grad_w2 = _new(w2.shape, x, needs[2])
    grad_b1 = _new((hidden_features,), x, needs[3])
    grad_b2 = _new((out_features,), x, needs[4])
    _cpu.two_layer_backward(
        get_num_threads(),
        _matrix(grad_y),
        rows,
        regular(w1),
        regular(w2),
        None if b1 is None else regular(b1),
        a,
        grad_x,
        grad_w1,
        grad_w2,
        grad_b1,
        grad_b2,
    )
    return _with_shape(grad_x, x.shape), grad_w1, grad_w2, grad_b1, grad_b2
