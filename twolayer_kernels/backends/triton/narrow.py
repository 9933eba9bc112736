"""Both layers in one launch, for networks whose hidden layer fits the chip.

Forward: a program takes some samples and some hidden features, computes their activation and at
once its contribution to the output; the hidden layer goes to memory only where backward wants it.
Where hidden features are dealt to several programs, each leaves its contribution in memory, and the
last one to arrive adds all of them in a fixed order: one launch, the same bits every time, and no
program waits for another.

Backward: programs of three kinds in one launch, for the first layer's weight, for the second
layer's weight with both biases, and for the input. Each computes the part that it needs of
``dh = (dy w2) * (a > 0)`` again, which costs little since ``out_features`` is small. The weights'
programs may share the batch in the same way as above.

The three widths of the network are compile-time constants: known sizes let the compiler prove
alignment and halve the registers. Nothing of that depends on the batch: one compiled kernel serves
all batches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .arriving import is_last
from .plan import blocks_of, counter_offset, share_offset


class Matrix(NamedTuple):
    """A matrix in memory."""

    data: Any
    row_stride: Any
    col_stride: Any
    rows: Any
    cols: Any


class Shares(NamedTuple):
    """What the programs that share the batch leave for the last of them to add up."""

    data: Any  # ``None``: the batch is not shared
    arrived: Any  # counters
    part: Any  # which of them this program is, of
    parts: Any
    size: Any  # of all that one of them leaves


@triton.jit
def _load(source, row, col, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``ROWS x COLS`` elements from ``(row, col)`` on, zeros beyond the matrix."""
    r = row + tl.arange(0, ROWS)
    c = col + tl.arange(0, COLS)
    row_offsets = r.to(tl.int64)[:, None] * source.row_stride
    offsets = row_offsets + c.to(tl.int64)[None, :] * source.col_stride
    inside = (r < source.rows)[:, None] & (c < source.cols)[None, :]
    return tl.load(source.data + offsets, mask=inside, other=0.0)


@triton.jit
def _store(target, row, col, value, ROWS: tl.constexpr, COLS: tl.constexpr):
    """To a matrix of adjacent columns."""
    r = row + tl.arange(0, ROWS)
    c = col + tl.arange(0, COLS)
    offsets = r.to(tl.int64)[:, None] * target.row_stride + c[None, :]
    inside = (r < target.rows)[:, None] & (c < target.cols)[None, :]
    tl.store(target.data + offsets, value.to(target.data.dtype.element_ty), mask=inside)


@triton.jit
def _added(acc, left, right, PRECISION: tl.constexpr):
    """``acc + left right``, in float32 as a sum of its own: chains of 1000 terms are inexact.

    Without ``max_num_imprecise_acc`` the compiler makes one chain of both sums again.
    """
    if left.dtype == tl.float32 and PRECISION == "ieee":
        acc += tl.dot(left, right, input_precision=PRECISION, max_num_imprecise_acc=1)
    else:
        acc = tl.dot(left, right, acc, input_precision=PRECISION)
    return acc


@triton.jit(do_not_specialize=["batch", "parts"])
def narrow_forward_kernel(
    x,
    w1,
    w2,
    b1,
    b2,
    a,
    y,
    contributions,
    arrived,
    x_row,
    x_col,
    w1_row,
    w1_col,
    w2_row,
    w2_col,
    batch,
    parts,
    IN: tl.constexpr,
    HIDDEN: tl.constexpr,
    OUT: tl.constexpr,
    X_ALIGN: tl.constexpr,
    W1_ALIGN: tl.constexpr,
    W2_ALIGN: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    OUT_PADDED: tl.constexpr,
):
    """``y = relu(x w1^T + b1) w2^T + b2``, and the activation where ``a`` is there.

    Grid: blocks of the batch, ``parts`` that share the hidden features. ``contributions`` holds
    ``parts x batch x OUT`` float32, ``arrived`` a zero for each block of the batch. ``*_ALIGN``
    elements divide the stride of the rows.
    """
    # What the caller knows of the strides, told so that loads are as wide as they can be.
    samples = Matrix(x, x_row // X_ALIGN * X_ALIGN, x_col, batch, IN)
    first = Matrix(w1, w1_row // W1_ALIGN * W1_ALIGN, w1_col, HIDDEN, IN)
    second = Matrix(w2, w2_row // W2_ALIGN * W2_ALIGN, w2_col, OUT, HIDDEN)
    block, part = tl.program_id(0), tl.program_id(1)
    row = block * BLOCK_B
    out = tl.arange(0, OUT_PADDED)
    acc = tl.zeros((BLOCK_B, OUT_PADDED), tl.float32)
    for h in range(part * BLOCK_H, HIDDEN, parts * BLOCK_H):
        hidden = tl.zeros((BLOCK_B, BLOCK_H), tl.float32)
        for k in range(0, IN, BLOCK_K):
            left = _load(samples, row, k, BLOCK_B, BLOCK_K)
            right = _load(first, h, k, BLOCK_H, BLOCK_K)
            hidden = _added(hidden, left, right.T, PRECISION)
        if b1 is not None:
            feature = h + tl.arange(0, BLOCK_H)
            bias = tl.load(b1 + feature, mask=feature < HIDDEN, other=0.0)
            hidden += bias.to(tl.float32)[None, :]
        hidden = tl.where(hidden < 0.0, 0.0, hidden)  # NaN stays
        if HIDDEN % BLOCK_H != 0:
            # Features that are not there: an infinite x times their zero weights is NaN.
            there = h + tl.arange(0, BLOCK_H) < HIDDEN
            hidden = tl.where(there[None, :], hidden, 0.0)
        activation = hidden.to(x.dtype.element_ty)
        if a is not None:
            _store(Matrix(a, HIDDEN, 1, batch, HIDDEN), row, h, activation, BLOCK_B, BLOCK_H)
        weights = _load(second, 0, h, OUT_PADDED, BLOCK_H)
        acc = _added(acc, activation, weights.T, PRECISION)

    if contributions is not None:
        size = tl.cast(batch, tl.int64) * OUT
        contribution = Matrix(contributions + part * size, OUT, 1, batch, OUT)
        _store(contribution, row, 0, acc, BLOCK_B, OUT_PADDED)
        if not is_last(arrived + block, parts):
            return
        r = row + tl.arange(0, BLOCK_B)
        offsets = r.to(tl.int64)[:, None] * OUT + out[None, :]
        inside = (r < batch)[:, None] & (out < OUT)[None, :]
        acc = tl.zeros((BLOCK_B, OUT_PADDED), tl.float32)
        for p in range(parts):
            acc += tl.load(contributions + p * size + offsets, mask=inside, other=0.0,
                           cache_modifier=".cg")  # fmt: skip
    if b2 is not None:
        acc += tl.load(b2 + out, mask=out < OUT, other=0.0).to(tl.float32)[None, :]
    _store(Matrix(y, OUT, 1, batch, OUT), row, 0, acc, BLOCK_B, OUT_PADDED)


@triton.jit
def _hidden_gradient(outputs, second, activations, row, h, PRECISION: tl.constexpr,
                     BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr,
                     OUT_PADDED: tl.constexpr):  # fmt: skip
    """``dh = (dy w2) * (a > 0)`` for some samples and hidden features, with ``dy`` and ``a``."""
    dy = _load(outputs, row, 0, BLOCK_B, OUT_PADDED)
    weights = _load(second, 0, h, OUT_PADDED, BLOCK_H)
    activation = _load(activations, row, h, BLOCK_B, BLOCK_H)
    dh = tl.dot(dy, weights, input_precision=PRECISION)
    dh = tl.where(activation.to(tl.float32) <= 0.0, 0.0, dh)  # the gradient of a NaN passes
    return dh, dy, activation


@triton.jit
def _finish_part(acc, target, row, col, shares, share, counter, ROWS: tl.constexpr,
                 COLS: tl.constexpr):  # fmt: skip
    """Stores a tile of a gradient; where parts of the batch have shares, the last of them does.

    The gradient's shares begin at ``share`` in each part's, its counter is at ``counter``.
    """
    if shares.data is None:
        _store(target, row, col, acc, ROWS, COLS)
    else:
        first = shares.data + share
        mine = Matrix(first + shares.part * shares.size, target.cols, 1, target.rows, target.cols)
        _store(mine, row, col, acc, ROWS, COLS)
        if is_last(shares.arrived + counter, shares.parts):
            total = tl.zeros((ROWS, COLS), tl.float32)
            r = row + tl.arange(0, ROWS)
            c = col + tl.arange(0, COLS)
            inside = (r < target.rows)[:, None] & (c < target.cols)[None, :]
            for p in range(shares.parts):
                offsets = p * shares.size + r.to(tl.int64)[:, None] * target.cols + c[None, :]
                total += tl.load(first + offsets, mask=inside, other=0.0, cache_modifier=".cg")
            _store(target, row, col, total, ROWS, COLS)


@triton.jit(do_not_specialize=["batch", "parts", "of_first", "of_second"])
def narrow_backward_kernel(
    grad_y,
    x,
    w1,
    w2,
    a,
    grad_x,
    grad_w1,
    grad_w2,
    grad_b1,
    grad_b2,
    shares,
    arrived,
    grad_y_row,
    grad_y_col,
    x_row,
    x_col,
    w1_row,
    w1_col,
    w2_row,
    w2_col,
    batch,
    parts,
    of_first,
    of_second,
    IN: tl.constexpr,
    HIDDEN: tl.constexpr,
    OUT: tl.constexpr,
    GRAD_Y_ALIGN: tl.constexpr,
    X_ALIGN: tl.constexpr,
    W1_ALIGN: tl.constexpr,
    W2_ALIGN: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_I: tl.constexpr,
    OUT_PADDED: tl.constexpr,
):
    """The gradients that are there, of ``y = relu(x w1^T + b1) w2^T + b2``; ``a``: (batch, HIDDEN).

    Grid: ``of_first + of_second`` programs and those of the input, see :mod:`.plan`; a kind without
    a gradient that is asked for has none. ``shares`` holds, for each of ``parts``, float32 for w1,
    w2, b1 and b2; ``arrived`` a zero for each tile. Both are ``None`` for one part.
    """
    outputs = Matrix(grad_y, grad_y_row // GRAD_Y_ALIGN * GRAD_Y_ALIGN, grad_y_col, batch, OUT)
    samples = Matrix(x, x_row // X_ALIGN * X_ALIGN, x_col, batch, IN)
    first = Matrix(w1, w1_row // W1_ALIGN * W1_ALIGN, w1_col, HIDDEN, IN)
    second = Matrix(w2, w2_row // W2_ALIGN * W2_ALIGN, w2_col, OUT, HIDDEN)
    activations = Matrix(a, HIDDEN, 1, batch, HIDDEN)
    HIDDEN_BLOCKS: tl.constexpr = blocks_of(HIDDEN, BLOCK_H)
    IN_BLOCKS: tl.constexpr = blocks_of(IN, BLOCK_I)
    SIZE: tl.constexpr = share_offset("end", IN, HIDDEN, OUT)
    NEEDS_SECOND: tl.constexpr = not (grad_w2 is None and grad_b1 is None and grad_b2 is None)
    pid = tl.program_id(0)
    if pid < of_first:
        if grad_w1 is not None:
            of_w1 = Shares(shares, arrived, pid % parts, parts, SIZE)
            tile = pid // parts
            h = tile // IN_BLOCKS * BLOCK_H
            i = tile % IN_BLOCKS * BLOCK_I
            w1_sum = tl.zeros((BLOCK_H, BLOCK_I), tl.float32)
            for row in range(of_w1.part * BLOCK_B, batch, parts * BLOCK_B):
                dh, _dy, _activation = _hidden_gradient(
                    outputs, second, activations, row, h, PRECISION, BLOCK_B, BLOCK_H, OUT_PADDED
                )
                right = _load(samples, row, i, BLOCK_B, BLOCK_I)
                w1_sum = _added(w1_sum, dh.to(right.dtype).T, right, PRECISION)
            _finish_part(
                w1_sum, Matrix(grad_w1, IN, 1, HIDDEN, IN), h, i, of_w1, 0, tile, BLOCK_H, BLOCK_I
            )
    elif pid < of_first + of_second:
        if NEEDS_SECOND:
            part = (pid - of_first) % parts
            block = (pid - of_first) // parts
            of_second_layer = Shares(shares, arrived, part, parts, SIZE)
            h = block * BLOCK_H
            w2_sum = tl.zeros((OUT_PADDED, BLOCK_H), tl.float32)
            b1_sum = tl.zeros((BLOCK_H,), tl.float32)
            b2_sum = tl.zeros((OUT_PADDED,), tl.float32)
            for row in range(part * BLOCK_B, batch, parts * BLOCK_B):
                dh, dy, activation = _hidden_gradient(
                    outputs, second, activations, row, h, PRECISION, BLOCK_B, BLOCK_H, OUT_PADDED
                )
                if grad_w2 is not None:
                    w2_sum = _added(w2_sum, dy.T, activation, PRECISION)
                if grad_b1 is not None:
                    b1_sum += tl.sum(dh, 0)
                if grad_b2 is not None:
                    b2_sum += tl.sum(dy.to(tl.float32), 0)
            # fmt: off
            if grad_w2 is not None:
                _finish_part(w2_sum, Matrix(grad_w2, HIDDEN, 1, OUT, HIDDEN), 0, h, of_second_layer,
                             share_offset("w2", IN, HIDDEN, OUT),
                             counter_offset("w2", HIDDEN_BLOCKS, IN_BLOCKS) + block,
                             OUT_PADDED, BLOCK_H)
            if grad_b1 is not None:
                _finish_part(b1_sum[None, :], Matrix(grad_b1, 0, 1, 1, HIDDEN), 0, h,
                             of_second_layer, share_offset("b1", IN, HIDDEN, OUT),
                             counter_offset("b1", HIDDEN_BLOCKS, IN_BLOCKS) + block,
                             1, BLOCK_H)
            if grad_b2 is not None:
                if block == 0:
                    _finish_part(b2_sum[None, :], Matrix(grad_b2, 0, 1, 1, OUT), 0, 0,
                                 of_second_layer, share_offset("b2", IN, HIDDEN, OUT),
                                 counter_offset("b2", HIDDEN_BLOCKS, IN_BLOCKS), 1, OUT_PADDED)
            # fmt: on
    else:
        if grad_x is not None:
            tile = pid - of_first - of_second
            row = tile // IN_BLOCKS * BLOCK_B
            i = tile % IN_BLOCKS * BLOCK_I
            x_sum = tl.zeros((BLOCK_B, BLOCK_I), tl.float32)
            for h in range(0, HIDDEN, BLOCK_H):
                dh, _dy, _activation = _hidden_gradient(
                    outputs, second, activations, row, h, PRECISION, BLOCK_B, BLOCK_H, OUT_PADDED
                )
                weights = _load(first, h, i, BLOCK_H, BLOCK_I)
                x_sum = _added(x_sum, dh.to(weights.dtype), weights, PRECISION)
            _store(Matrix(grad_x, IN, 1, batch, IN), row, i, x_sum, BLOCK_B, BLOCK_I)
