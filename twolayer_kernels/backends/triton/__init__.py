"""The Triton GPU kernels on torch tensors: tensors in, new tensors out.

The contract is that of :mod:`twolayer_kernels.backends`. A network whose hidden layer fits the chip
runs in one launch forward and one backward (:mod:`.narrow`), every other one as matrix products
with fused epilogues (:mod:`.product`). Both are deterministic: nothing is added up in an order that
depends on the run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
import triton
from torch import Tensor

from . import layers, measurements, two_layers
from .launch import INTERPRETED, device_at, device_of
from .precision import narrow_precision_of, precision_of
from .tiles import is_narrow

Gradient = Tensor | None
Rest = ParamSpec("Rest")
Result = TypeVar("Result")

CHECKS_ARGUMENTS = False
ADDS_TO_MAIN_GRAD = True

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# A100; H100, H200; B200, B300. Their relatives (8.6, 8.9, 12.0) have 99 KB of shared memory, which
# is too little for most tiles.
_CAPABILITIES = ((8, 0), (9, 0), (10, 0), (10, 3))
# From here on triton 3.6, the newest that the compiled kernels are checked with, is known to
# miscompile two products into one accumulator, and narrow ones of 4 warps. No code shows it, only a
# GPU would.
_FIRST_BLACKWELL = 100


def unsupported(device_type: str, dtype: torch.dtype) -> str | None:
    """Of several CUDA devices one that can run them is enough; a call on another one refuses."""
    if device_type != "cuda" and not INTERPRETED:
        return f"its kernels need tensors on a cuda device, got {device_type}"
    if dtype not in _DTYPES:
        return f"its kernels have no {dtype}"
    if INTERPRETED:
        return None
    if torch.version.hip is not None:
        return "its kernels are written for NVIDIA GPUs"
    reasons = [unsupported_device(index) for index in range(torch.cuda.device_count())]
    return next(iter(reasons), None) if all(reasons) else None


@cache
def unsupported_device(index: int) -> str | None:
    """Why the kernels cannot run on this CUDA device, or ``None`` where they can."""
    capability = torch.cuda.get_device_capability(index)
    if capability in _CAPABILITIES:
        return None
    known = ", ".join(f"{major}.{minor}" for major, minor in _CAPABILITIES)
    name = torch.cuda.get_device_name(index)
    return f"its tiles are for compute capability {known}, {name} has {capability}"


def describe(dtype: torch.dtype, sizes: tuple[int, int, int, int] | None) -> str:
    if sizes is None:
        return ""
    narrow = is_narrow(narrow_precision_of(dtype), *sizes)
    return "[both layers in one launch]" if narrow else "[layer by layer]"


def _only_by_name(index: int) -> str | None:
    """Why no measurement may choose these kernels on a device, or ``None`` where it may."""
    problem = None if INTERPRETED else unsupported_device(index)
    if problem is not None:
        return f"the Triton kernels cannot run this: {problem}"
    device = device_at(index)
    if device.arch < _FIRST_BLACKWELL:
        return None
    return (
        f"on {device.name} the Triton kernels run only by name, backend='triton': triton"
        f" {triton.__version__} may miscompile products there (triton-lang/triton#10821, #9871)"
    )


def may_be_faster(index: int, dtype: torch.dtype) -> bool:
    """Whether measurements may choose these kernels on a device, for a network of any size."""
    if _only_by_name(index) is not None:
        return False
    rows = measurements.rows_for(device_at(index).name, precision_of(dtype))
    return any(row.torch >= measurements.MARGIN * row.ours for row in rows)


def verdict(
    x: Tensor, batch: int, in_features: int, hidden_features: int, out_features: int
) -> measurements.Verdict:
    """Whether these kernels are faster than torch's on ``x``'s device, and how that is known."""
    problem = _only_by_name(x.device.index or 0)
    if problem is not None:
        return measurements.Verdict(False, problem)
    sizes = (batch, in_features, hidden_features, out_features)
    return measurements.verdict(device_of(x).name, precision_of(x.dtype), *sizes)


def _on_its_device(
    function: Callable[Concatenate[Tensor, Rest], Result],
) -> Callable[Concatenate[Tensor, Rest], Result]:
    """Kernels start on the current device; the tensors may be on another one."""

    @wraps(function)
    def run(first: Tensor, /, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        if not first.is_cuda:
            return function(first, *args, **kwargs)
        problem = unsupported_device(first.device.index)
        if problem is not None:
            raise NotImplementedError(f"backend='triton' cannot run this call: {problem}")
        if first.device.index == torch.cuda.current_device():
            return function(first, *args, **kwargs)
        with torch.cuda.device(first.device):
            return function(first, *args, **kwargs)

    return run


@_on_its_device
def linear_relu_forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    return layers.linear(x, w, b, relu=True)


@_on_its_device
def linear_relu_backward(
    grad_a: Tensor, x: Tensor, w: Tensor, a: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Gradient, Gradient, Gradient]:
    dh, grad_b = layers.masked(grad_a, a, needs[2])
    return (
        layers.input_gradient(dh, w) if needs[0] else None,
        layers.weight_gradient(dh, x)[0] if needs[1] else None,
        grad_b,
    )


@_on_its_device
def two_layer_forward(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    b2: Tensor | None,
    keep_activation: bool,
) -> tuple[Tensor, Tensor | None]:
    precision = narrow_precision_of(x.dtype)
    if is_narrow(precision, x.shape[0], w1.shape[1], w1.shape[0], w2.shape[0]):
        return two_layers.forward(x, w1, w2, b1, b2, keep_activation)
    a = layers.linear(x, w1, b1, relu=True)
    return layers.linear(a, w2, b2, relu=False), a if keep_activation else None


def _activation_again(x: Tensor, w1: Tensor, w2: Tensor, b1: Tensor | None, narrow: bool) -> Tensor:
    """By the kernel of the forward: the mask must be that of the result, to the last bit."""
    if not narrow:
        return layers.linear(x, w1, b1, relu=True)
    _, a = two_layers.forward(x, w1, w2, b1, None, keep_activation=True)
    assert a is not None
    return a


@_on_its_device
def two_layer_backward(
    grad_y: Tensor,
    x: Tensor | None,
    w1: Tensor,
    w2: Tensor,
    b1: Tensor | None,
    a: Tensor | None,
    needs: tuple[bool, bool, bool, bool, bool],
    main_grads: tuple[Tensor | None, Tensor | None] = (None, None),
) -> tuple[Gradient, Gradient, Gradient, Gradient, Gradient]:
    """``main_grads``: contiguous float32 that the gradients of w1 and w2 are added to, in the
    place of being returned.
    """
    main_w1, main_w2 = main_grads
    first_layer = needs[0] or needs[1] or needs[3]
    adds = main_w1 is not None or main_w2 is not None
    precision = narrow_precision_of(grad_y.dtype)
    narrow = is_narrow(precision, grad_y.shape[0], w1.shape[1], w1.shape[0], w2.shape[0])
    if a is None and (first_layer or needs[2]):
        assert x is not None
        a = _activation_again(x, w1, w2, b1, narrow)
    if a is not None and narrow and not adds:
        return two_layers.backward(grad_y, x, w1, w2, a, needs)
    grad_w2 = grad_b2 = None
    if needs[2]:
        assert a is not None
        grad_w2, grad_b2 = layers.weight_gradient(grad_y, a, needs[4], main_w2)
    elif needs[4]:
        grad_b2 = layers.column_sums(grad_y)
    if not first_layer:
        return None, None, None if main_w2 is not None else grad_w2, None, grad_b2
    assert a is not None
    dh, grad_b1 = layers.hidden_gradient(grad_y, w2, a, needs[3])
    grad_x = layers.input_gradient(dh, w1) if needs[0] else None
    grad_w1 = None
    if needs[1]:
        assert x is not None
        grad_w1, _ = layers.weight_gradient(dh, x, add_to=main_w1)
    return (
        grad_x,
        None if main_w1 is not None else grad_w1,
        None if main_w2 is not None else grad_w2,
        grad_b1,
        grad_b2,
    )
