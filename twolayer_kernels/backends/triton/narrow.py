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

import triton
import triton.language as tl

from .arriving import is_last
from .plan import blocks_of, counter_offset, share_offset


@triton.jit
def _load(source, row_stride, col_stride, row, col, rows, cols,
          ROWS: tl.constexpr, COLS: tl.constexpr):  # fmt: skip
    """``ROWS x COLS`` elements from ``(row, col)`` on, zeros beyond the matrix."""
    r = row + tl.arange(0, ROWS)
    c = col + tl.arange(0, COLS)
    offsets = r.to(tl.int64)[:, None] * row_stride + c.to(tl.int64)[None, :] * col_stride
    return tl.load(source + offsets, mask=(r < rows)[:, None] & (c < cols)[None, :], other=0.0)


@triton.jit
def _store(target, row_stride, row, col, rows, cols, value, ROWS: tl.constexpr, COLS: tl.constexpr):
    r = row + tl.arange(0, ROWS)
    c = col + tl.arange(0, COLS)
    offsets = r.to(tl.int64)[:, None] * row_stride + c[None, :]
    inside = (r < rows)[:, None] & (c < cols)[None, :]
    tl.store(target + offsets, value.to(target.dtype.element_ty), mask=inside)


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
    x_row = x_row // X_ALIGN * X_ALIGN
    w1_row = w1_row // W1_ALIGN * W1_ALIGN
    w2_row = w2_row // W2_ALIGN * W2_ALIGN
    block, part = tl.program_id(0), tl.program_id(1)
    row = block * BLOCK_B
    out = tl.arange(0, OUT_PADDED)
    acc = tl.zeros((BLOCK_B, OUT_PADDED), tl.float32)
    for h in range(part * BLOCK_H, HIDDEN, parts * BLOCK_H):
        hidden = tl.zeros((BLOCK_B, BLOCK_H), tl.float32)
        for k in range(0, IN, BLOCK_K):
            samples = _load(x, x_row, x_col, row, k, batch, IN, BLOCK_B, BLOCK_K)
            weights = _load(w1, w1_row, w1_col, h, k, HIDDEN, IN, BLOCK_H, BLOCK_K)
            hidden = _added(hidden, samples, weights.T, PRECISION)
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
            _store(a, HIDDEN, row, h, batch, HIDDEN, activation, BLOCK_B, BLOCK_H)
        second = _load(w2, w2_row, w2_col, 0, h, OUT, HIDDEN, OUT_PADDED, BLOCK_H)
        acc = _added(acc, activation, second.T, PRECISION)

    if contributions is not None:
        size = tl.cast(batch, tl.int64) * OUT
        _store(contributions + part * size, OUT, row, 0, batch, OUT, acc, BLOCK_B, OUT_PADDED)
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
    _store(y, OUT, row, 0, batch, OUT, acc, BLOCK_B, OUT_PADDED)


@triton.jit
def _hidden_gradient(grad_y, grad_y_row, grad_y_col, w2, w2_row, w2_col, a, row, h, batch,
                     HIDDEN: tl.constexpr, OUT: tl.constexpr, PRECISION: tl.constexpr,
                     BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr,
                     OUT_PADDED: tl.constexpr):  # fmt: skip
    """``dh = (dy w2) * (a > 0)`` for some samples and hidden features, with ``dy`` and ``a``."""
    dy = _load(grad_y, grad_y_row, grad_y_col, row, 0, batch, OUT, BLOCK_B, OUT_PADDED)
    second = _load(w2, w2_row, w2_col, 0, h, OUT, HIDDEN, OUT_PADDED, BLOCK_H)
    activation = _load(a, HIDDEN, 1, row, h, batch, HIDDEN, BLOCK_B, BLOCK_H)
    dh = tl.dot(dy, second, input_precision=PRECISION)
    dh = tl.where(activation.to(tl.float32) <= 0.0, 0.0, dh)  # the gradient of a NaN passes
    return dh, dy, activation


@triton.jit
def _finish_part(acc, shares, share, arrived, counter, target, row_stride, row, col, rows, cols,
                 part, parts, size, ROWS: tl.constexpr,
                 COLS: tl.constexpr):  # fmt: skip
    """Stores a tile of a gradient; where parts of the batch have shares, the last of them does.

    The gradient's shares begin at ``share`` in each part's, its counter is at ``counter``.
    """
    if shares is None:
        _store(target, row_stride, row, col, rows, cols, acc, ROWS, COLS)
    else:
        shares += share
        _store(shares + part * size, cols, row, col, rows, cols, acc, ROWS, COLS)
        if is_last(arrived + counter, parts):
            total = tl.zeros((ROWS, COLS), tl.float32)
            r = row + tl.arange(0, ROWS)
            c = col + tl.arange(0, COLS)
            inside = (r < rows)[:, None] & (c < cols)[None, :]
            for p in range(parts):
                offsets = p * size + r.to(tl.int64)[:, None] * cols + c[None, :]
                total += tl.load(shares + offsets, mask=inside, other=0.0, cache_modifier=".cg")
            _store(target, row_stride, row, col, rows, cols, total, ROWS, COLS)


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
    grad_y_row = grad_y_row // GRAD_Y_ALIGN * GRAD_Y_ALIGN
    x_row = x_row // X_ALIGN * X_ALIGN
    w1_row = w1_row // W1_ALIGN * W1_ALIGN
    w2_row = w2_row // W2_ALIGN * W2_ALIGN
    HIDDEN_BLOCKS: tl.constexpr = blocks_of(HIDDEN, BLOCK_H)
    IN_BLOCKS: tl.constexpr = blocks_of(IN, BLOCK_I)
    SIZE: tl.constexpr = share_offset("end", IN, HIDDEN, OUT)
    NEEDS_SECOND: tl.constexpr = not (grad_w2 is None and grad_b1 is None and grad_b2 is None)
    pid = tl.program_id(0)
    if pid < of_first:
        if grad_w1 is not None:
            part = pid % parts
            tile = pid // parts
            h = tile // IN_BLOCKS * BLOCK_H
            i = tile % IN_BLOCKS * BLOCK_I
            w1_sum = tl.zeros((BLOCK_H, BLOCK_I), tl.float32)
            for row in range(part * BLOCK_B, batch, parts * BLOCK_B):
                dh, _dy, _activation = _hidden_gradient(
                    grad_y, grad_y_row, grad_y_col, w2, w2_row, w2_col, a, row, h, batch,
                    HIDDEN, OUT, PRECISION, BLOCK_B, BLOCK_H, OUT_PADDED,
                )  # fmt: skip
                samples = _load(x, x_row, x_col, row, i, batch, IN, BLOCK_B, BLOCK_I)
                dh = dh.to(samples.dtype)
                w1_sum = _added(w1_sum, dh.T, samples, PRECISION)
            _finish_part(w1_sum, shares, 0, arrived, tile, grad_w1, IN, h, i, HIDDEN, IN, part,
                         parts, SIZE, BLOCK_H, BLOCK_I)  # fmt: skip
    elif pid < of_first + of_second:
        if NEEDS_SECOND:
            part = (pid - of_first) % parts
            block = (pid - of_first) // parts
            h = block * BLOCK_H
            w2_sum = tl.zeros((OUT_PADDED, BLOCK_H), tl.float32)
            b1_sum = tl.zeros((BLOCK_H,), tl.float32)
            b2_sum = tl.zeros((OUT_PADDED,), tl.float32)
            for row in range(part * BLOCK_B, batch, parts * BLOCK_B):
                dh, dy, activation = _hidden_gradient(
                    grad_y, grad_y_row, grad_y_col, w2, w2_row, w2_col, a, row, h, batch,
                    HIDDEN, OUT, PRECISION, BLOCK_B, BLOCK_H, OUT_PADDED,
                )  # fmt: skip
                if grad_w2 is not None:
                    w2_sum = _added(w2_sum, dy.T, activation, PRECISION)
                if grad_b1 is not None:
                    b1_sum += tl.sum(dh, 0)
                if grad_b2 is not None:
                    b2_sum += tl.sum(dy.to(tl.float32), 0)
            # fmt: off
            if grad_w2 is not None:
                _finish_part(w2_sum, shares, share_offset("w2", IN, HIDDEN, OUT), arrived,
                             counter_offset("w2", HIDDEN_BLOCKS, IN_BLOCKS) + block, grad_w2,
                             HIDDEN, 0, h, OUT, HIDDEN, part, parts, SIZE, OUT_PADDED, BLOCK_H)
            if grad_b1 is not None:
                _finish_part(b1_sum[None, :], shares, share_offset("b1", IN, HIDDEN, OUT), arrived,
                             counter_offset("b1", HIDDEN_BLOCKS, IN_BLOCKS) + block, grad_b1,
                             0, 0, h, 1, HIDDEN, part, parts, SIZE, 1, BLOCK_H)
            if grad_b2 is not None:
                if block == 0:
                    _finish_part(b2_sum[None, :], shares, share_offset("b2", IN, HIDDEN, OUT),
                                 arrived, counter_offset("b2", HIDDEN_BLOCKS, IN_BLOCKS), grad_b2,
                                 0, 0, 0, 1, OUT, part, parts, SIZE, 1, OUT_PADDED)
            # fmt: on
    else:
        if grad_x is not None:
            tile = pid - of_first - of_second
            row = tile // IN_BLOCKS * BLOCK_B
            i = tile % IN_BLOCKS * BLOCK_I
            x_sum = tl.zeros((BLOCK_B, BLOCK_I), tl.float32)
            for h in range(0, HIDDEN, BLOCK_H):
                dh, _dy, _activation = _hidden_gradient(
                    grad_y, grad_y_row, grad_y_col, w2, w2_row, w2_col, a, row, h, batch,
                    HIDDEN, OUT, PRECISION, BLOCK_B, BLOCK_H, OUT_PADDED,
                )  # fmt: skip
                first = _load(w1, w1_row, w1_col, h, i, HIDDEN, IN, BLOCK_H, BLOCK_I)
                x_sum = _added(x_sum, dh.to(first.dtype), first, PRECISION)
            _store(grad_x, IN, row, i, batch, IN, x_sum, BLOCK_B, BLOCK_I)
