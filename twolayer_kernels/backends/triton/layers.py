"""The steps of a network that goes layer by layer, each one product with its epilogue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from .arrivals import counters
from .launch import INTERPRETED, Device, Launch, device_of, launch
from .precision import input_precision, precision_of, product_precision_of
from .product import column_sums_kernel, masked_kernel, product_kernel, sum_parts_kernel
from .products import torch_is_faster
from .tiles import Tile, alignment, ceil_div, choose_tile, power_of_two_from

_SUMS = Launch(4, 2)
# The interpreter knows no PTX.
_FETCHES_MASKS = not INTERPRETED
# Steps that a program of a column sum takes at least: fewer are not worth another's arrival.
_STEPS_OF_A_PART = 2
# A product of at least this many multiply-adds is worth a copy of an operand without adjacent
# elements, or whose rows start anywhere, into rows that a descriptor can take. Not measured yet:
# through pointers such rows are read an element at a time, and the large tiles spill.
_WORTH_A_COPY = 1 << 26
# Tensor descriptors exist since sm_90 (on sm_80 they are emulated, and 16-bit kernels spill).
_FIRST_WITH_DESCRIPTORS = 90


class _Operand(NamedTuple):
    """A matrix as the product kernel takes it: rows of ``inner_size`` adjacent elements."""

    data: Tensor | TensorDescriptor
    outer_stride: int
    inner_stride: int
    k_inner: bool
    alignment: int
    described: bool


def _describable(t: Tensor, outer_stride: int, inner_size: int, outer_size: int) -> bool:
    return (
        t.data_ptr() % 16 == 0
        and outer_stride * t.element_size() % 16 == 0
        and outer_stride >= inner_size > 0
        and outer_size > 0
    )


def _with_aligned_rows(t: Tensor, outer: int) -> Tensor:
    """A copy of ``t`` whose rows along dimension ``outer`` start at multiples of 16 elements."""
    rows = t if outer == 0 else t.T
    padded = ceil_div(rows.shape[1], 16) * 16
    copy = torch.empty(rows.shape[0], padded, dtype=t.dtype, device=t.device)
    copy = copy[:, : rows.shape[1]].copy_(rows)
    return copy if outer == 0 else copy.T


def _operand(
    t: Tensor,
    k_is_last: bool,
    block_outside: int,
    block_k: int,
    descriptors: bool,
    worth_a_copy: bool,
) -> _Operand:
    """``t`` of two dimensions, one of them K; the tile is ``block_outside`` x ``block_k``."""
    k = 1 if k_is_last else 0
    last_is_inner = t.stride(1) == 1 or t.shape[1] == 1
    inner = 1 if last_is_inner or not (t.stride(0) == 1 or t.shape[0] == 1) else 0
    outer = 1 - inner
    outer_stride = t.stride(outer) if t.shape[outer] > 1 else max(1, t.shape[inner])
    inner_stride = t.stride(inner) if t.shape[inner] > 1 else 1
    k_inner = inner == k
    outer_size, inner_size = t.shape[outer], t.shape[inner]
    if (
        descriptors
        and worth_a_copy
        and (inner_stride != 1 or not _describable(t, outer_stride, inner_size, outer_size))
    ):
        t = _with_aligned_rows(t, outer)
        outer_stride, inner_stride = t.stride(outer), 1
    if inner_stride != 1:
        return _Operand(t, outer_stride, inner_stride, k_inner, 1, False)
    aligned = alignment(outer_stride, inner_size)
    if descriptors and _describable(t, outer_stride, inner_size, outer_size):
        block = [block_outside, block_k] if k_inner else [block_k, block_outside]
        data = TensorDescriptor(t, [outer_size, inner_size], [outer_stride, 1], block)
        return _Operand(data, outer_stride, 1, k_inner, aligned, True)
    return _Operand(t, outer_stride, 1, k_inner, aligned, False)


def _programs(tile: Tile, device: Device, work: int) -> int:
    return max(1, min(work, device.multiprocessors * (8 // tile.how.warps)))


def _sum_parts(source: Tensor, out: Tensor, parts: int, add: bool) -> None:
    rows = min(16, power_of_two_from(max(1, parts)))
    block = 2048 // rows
    grid = (ceil_div(out.numel(), block),)
    launch(sum_parts_kernel, grid, (source, out, parts, out.numel()), (add, rows, block), _SUMS)


def column_sums(t: Tensor) -> Tensor:
    """``t.sum(0)``, accumulated in float32 in a fixed order."""
    rows, cols = t.shape
    out = torch.empty(cols, dtype=t.dtype, device=t.device)
    if cols == 0:
        return out
    block = min(128, power_of_two_from(cols))
    blocks, rows_at_once = ceil_div(cols, block), 4096 // block
    most_parts = rows // (_STEPS_OF_A_PART * rows_at_once)
    parts = max(1, min(2 * device_of(t).multiprocessors // blocks, most_parts))
    contributions = arrived = None
    if parts > 1:
        contributions = torch.empty(parts, cols, dtype=torch.float32, device=t.device)
        arrived = counters(t.device, blocks)
    launch(
        column_sums_kernel,
        (blocks, parts),
        (t, t.stride(0), t.stride(1), rows, cols, out, contributions, arrived, parts),
        (rows_at_once, block),
        _SUMS,
    )
    return out


def product(
    kind: str,
    a: Tensor,
    b: Tensor,
    *,
    bias: Tensor | None = None,
    relu: bool = False,
    mask: Tensor | None = None,
    wants_sums: bool = False,
    add_to: Tensor | None = None,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor | None]:
    """``a`` (M, K) times ``b`` (K, N): C, and its column sums.

    With ``add_to``, a contiguous float32 (M, N), C is added to it and it is returned. ``tile``, for
    the tuner, takes the place of the one that :mod:`.tiles` would choose.
    """
    (m, k), n, dtype = a.shape, b.shape[1], a.dtype
    device, precision = device_of(a), product_precision_of(dtype, k)
    out = torch.empty(m, n, dtype=dtype, device=a.device) if add_to is None else add_to
    col_sums = torch.empty(n, dtype=dtype, device=a.device) if wants_sums else None
    if m == 0 or n == 0:
        if col_sums is not None:
            col_sums.zero_()
        return out, col_sums

    parts = 1
    if tile is None:
        tile, parts = choose_tile(kind, precision, device, m, n, k, kind == "wgrad")
    descriptors = device.arch >= _FIRST_WITH_DESCRIPTORS
    worth_a_copy = m * n * k >= _WORTH_A_COPY
    left = _operand(a, True, tile.block_m, tile.block_k, descriptors, worth_a_copy)
    right = _operand(b, False, tile.block_n, tile.block_k, descriptors, worth_a_copy)
    tiles_m = ceil_div(m, tile.block_m)
    target: Tensor | TensorDescriptor = out
    if parts > 1:
        target = torch.empty(parts * m, n, dtype=torch.float32, device=a.device)
    described = descriptors and parts == 1 and add_to is None and _describable(out, n, n, m)
    if described:
        target = TensorDescriptor(out, [m, n], [n, 1], [tile.block_m, tile.block_n // tile.pieces])
    sums = torch.empty(tiles_m, n, dtype=torch.float32, device=a.device) if wants_sums else None
    work = tiles_m * ceil_div(n, tile.block_n) * parts
    programs = _programs(tile, device, work)
    launch(
        product_kernel,
        (programs,),
        (
            left.data,
            left.outer_stride,
            left.inner_stride,
            right.data,
            right.outer_stride,
            right.inner_stride,
            target,
            n,
            bias,
            mask,
            0 if mask is None else mask.stride(0),
            0 if mask is None else mask.stride(1),
            sums,
            m,
            n,
            k,
            parts,
            programs,
        ),
        (
            left.k_inner,
            right.k_inner,
            left.alignment,
            right.alignment,
            alignment(n),
            left.described,
            right.described,
            described,
            relu,
            add_to is not None and parts == 1,
            input_precision(precision),
            tile.block_m,
            tile.block_n,
            tile.block_k,
            tile.group_m,
            tile.pieces,
            tile.flatten and k > 0,  # one loop of two takes the inner one to run
            mask is not None and mask.stride(1) == 1 and _FETCHES_MASKS,
        ),
        tile.how,
    )
    if parts > 1:
        assert isinstance(target, Tensor)
        _sum_parts(target, out, parts, add_to is not None)
    if sums is not None:
        assert col_sums is not None
        _sum_parts(sums, col_sums, tiles_m, False)
    return out, col_sums


def adjacent(b: Tensor | None) -> Tensor | None:
    """A bias as the kernels read it; one that was expanded has no elements beside the first."""
    return b if b is None or b.is_contiguous() else b.contiguous()


def _torch_runs(work: str, a: Tensor, n: int) -> bool:
    """Whether torch's product of ``a`` (M, K), with N columns of another, is the faster one."""
    m, k = a.shape
    return torch_is_faster(device_of(a).name, work, precision_of(a.dtype), m, n, k)


@contextmanager
def _in_their_dtype(device_type: str) -> Iterator[None]:
    """What comes here is in the dtype that it is to be computed in."""
    if torch.is_autocast_enabled(device_type):
        with torch.autocast(device_type, enabled=False):
            yield
    else:
        yield


def linear(x: Tensor, w: Tensor, b: Tensor | None, *, relu: bool) -> Tensor:
    """``x w^T + b``, with ReLU or without: (batch, out_features)."""
    if not _torch_runs("linear_relu" if relu else "linear", x, w.shape[0]):
        return product("linear", x, w.T, bias=adjacent(b), relu=relu)[0]
    with _in_their_dtype(x.device.type):
        y = torch.nn.functional.linear(x, w, b)
    return y.relu_() if relu else y


def hidden_gradient(
    grad_y: Tensor, w2: Tensor, a: Tensor, wants_bias: bool
) -> tuple[Tensor, Tensor | None]:
    """``dh = (dy w2) * (a > 0)``, and its column sums: the gradient of the first bias."""
    if not _torch_runs("masked_gradient", grad_y, w2.shape[1]):
        return product("dgrad", grad_y, w2, mask=a, wants_sums=wants_bias)
    with _in_their_dtype(a.device.type):
        grad_a = torch.mm(grad_y, w2)
    return masked(grad_a, a, wants_bias)


def input_gradient(dh: Tensor, w: Tensor) -> Tensor:
    """``dh w``."""
    if not _torch_runs("input_gradient", dh, w.shape[1]):
        return product("dgrad", dh, w)[0]
    with _in_their_dtype(dh.device.type):
        return torch.mm(dh, w)


def weight_gradient(
    grad: Tensor, x: Tensor, wants_bias: bool = False, add_to: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """``grad^T x``, and the column sums of ``grad``: the gradient of the layer's bias.

    ``add_to``: a contiguous float32 tensor of the weight's shape that the gradient is added to.
    """
    if add_to is not None or not _torch_runs("weight_gradient", grad.T, x.shape[1]):
        grad_w, _ = product("wgrad", grad.T, x, add_to=add_to)
    else:
        with _in_their_dtype(grad.device.type):
            grad_w = torch.mm(grad.T, x)
    return grad_w, column_sums(grad) if wants_bias else None


def masked(grad: Tensor, a: Tensor, wants_bias: bool) -> tuple[Tensor, Tensor | None]:
    """``grad * (a > 0)``, and its column sums."""
    rows, cols = grad.shape
    dh = torch.empty(rows, cols, dtype=grad.dtype, device=grad.device)
    grad_b = torch.empty(cols, dtype=grad.dtype, device=grad.device) if wants_bias else None
    if rows == 0 or cols == 0:
        return dh, None if grad_b is None else grad_b.zero_()
    block_m, block_n = 64, 64
    tiles_m = ceil_div(rows, block_m)
    sums = (
        torch.empty(tiles_m, cols, dtype=torch.float32, device=grad.device) if wants_bias else None
    )
    launch(
        masked_kernel,
        (tiles_m * ceil_div(cols, block_n),),
        (grad, grad.stride(0), grad.stride(1), a, a.stride(0), a.stride(1), dh, sums, rows, cols),
        (block_m, block_n),
        _SUMS,
    )
    if grad_b is not None and sums is not None:
        _sum_parts(sums, grad_b, tiles_m, False)
    return dh, grad_b
