"""The Triton GPU kernels on torch tensors: tensors in, new tensors out.

The contract is that of :mod:`twolayer_kernels.backends`. A network whose hidden layer fits the chip
runs in one launch forward and one backward (:mod:`.narrow`), every other one as matrix products
with fused epilogues (:mod:`.product`). Both are deterministic: nothing is added up in an order that
depends on the run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from . import layers, measurements, two_layers
from .launch import INTERPRETED, device_of
from .precision import precision_of
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


def unsupported(device_type: str, dtype: torch.dtype) -> str | None:
    if device_type != "cuda" and not INTERPRETED:
        return f"its kernels need tensors on a cuda device, got {device_type}"
    if dtype not in _DTYPES:
        return f"its kernels have no {dtype}"
    if INTERPRETED:
        return None
    if torch.version.hip is not None:
        return "its kernels are written for NVIDIA GPUs"
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        if capability not in _CAPABILITIES:
            known = ", ".join(f"{major}.{minor}" for major, minor in _CAPABILITIES)
            name = torch.cuda.get_device_name(index)
            return f"its tiles are for compute capability {known}, {name} has {capability}"
    return None


def describe(sizes: tuple[int, int, int, int] | None) -> str:
    if sizes is None:
        return ""
    return "[both layers in one launch]" if is_narrow(*sizes) else "[layer by layer]"


def verdict(
    x: Tensor, batch: int, in_features: int, hidden_features: int, out_features: int
) -> measurements.Verdict:
    """Whether these kernels are faster than torch's on ``x``'s device, and how that is known."""
    sizes = (batch, in_features, hidden_features, out_features)
    return measurements.verdict(device_of(x).name, precision_of(x.dtype), *sizes)


def _on_its_device(
    function: Callable[Concatenate[Tensor, Rest], Result],
) -> Callable[Concatenate[Tensor, Rest], Result]:
    """Kernels start on the current device; the tensors may be on another one."""

    @wraps(function)
    def run(first: Tensor, /, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        if not first.is_cuda or first.device.index == torch.cuda.current_device():
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
    if is_narrow(x.shape[0], w1.shape[1], w1.shape[0], w2.shape[0]):
        return two_layers.forward(x, w1, w2, b1, b2, keep_activation)
    a = layers.linear(x, w1, b1, relu=True)
    return layers.linear(a, w2, b2, relu=False), a if keep_activation else None


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
    if a is None and (first_layer or needs[2]):
        assert x is not None
        a = layers.linear(x, w1, b1, relu=True)
    adds = main_w1 is not None or main_w2 is not None
    narrow = is_narrow(grad_y.shape[0], w1.shape[1], w1.shape[0], w2.shape[0])
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
