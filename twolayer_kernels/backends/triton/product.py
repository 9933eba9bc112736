"""The matrix product ``C = epilogue(A B)`` that every layer of the general path is made of.

One persistent kernel: each program takes tiles of C in turn, in an order that keeps the rows of A
and the columns of B of neighbouring tiles in L2. Accumulation is in float32. The epilogue works on
the finished sums in registers, in up to four pieces of the tile, so that a large tile needs no more
registers for it than a small one.

Operands come through tensor descriptors (TMA) where their strides allow, else through pointers.
Either may be stored along K or across it; nothing is copied to transpose it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .arriving import is_last

# Loads that are on their way while others are added up.
_AHEAD = tl.constexpr(3)


@triton.jit
def _tile_position(tile, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """Row and column of a tile: bands of ``GROUP_M`` rows of tiles, column after column in each."""
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    band = tile // (GROUP_M * tiles_n)
    within = tile % (GROUP_M * tiles_n)
    height = min(tiles_m - band * GROUP_M, GROUP_M)
    return band * GROUP_M + within % height, within // height


class Operand(NamedTuple):
    """One of the matrices that are multiplied, as it is stored: rows of ``inner_size`` elements."""

    data: Any  # a pointer, or a tensor descriptor
    outer_stride: Any
    inner_stride: Any
    outer_size: Any
    inner_size: Any


class Epilogue(NamedTuple):
    """What is done to finished sums before their store, in this order; ``None``: not done."""

    bias: Any  # added to each row
    mask: Any  # (M, N): where it is not above 0, neither is the result
    mask_row: Any
    mask_col: Any
    sums: Any  # gets the column sums of each row of tiles


class Target(NamedTuple):
    """C, and its size."""

    data: Any  # a pointer, or a tensor descriptor
    row_stride: Any
    rows: Any
    cols: Any


@triton.jit
def _load_tile(operand, across, k, ACROSS: tl.constexpr, DEPTH: tl.constexpr,
               K_INNER: tl.constexpr, DESCRIPTOR: tl.constexpr):  # fmt: skip
    """``ACROSS x DEPTH`` elements from ``(across, k)`` on, zeros beyond the matrix."""
    OUTER: tl.constexpr = ACROSS if K_INNER else DEPTH
    INNER: tl.constexpr = DEPTH if K_INNER else ACROSS
    outer, inner = (across, k) if K_INNER else (k, across)
    if DESCRIPTOR:
        tile = operand.data.load([outer, inner])
    else:
        rows = outer + tl.arange(0, OUTER)
        cols = inner + tl.arange(0, INNER)
        row_offsets = rows.to(tl.int64)[:, None] * operand.outer_stride
        offsets = row_offsets + cols.to(tl.int64)[None, :] * operand.inner_stride
        inside = (rows < operand.outer_size)[:, None] & (cols < operand.inner_size)[None, :]
        tile = tl.load(operand.data + offsets, mask=inside, other=0.0)
    if not K_INNER:
        tile = tile.T
    return tile


@triton.jit
def _halves(acc, BLOCK_M: tl.constexpr, WIDTH: tl.constexpr):
    """The left and the right half of the columns."""
    return tl.split(tl.permute(tl.reshape(acc, (BLOCK_M, 2, WIDTH // 2)), (0, 2, 1)))


@triton.jit
def _fetch_ahead(source, row_stride, m, n, M, N, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Asks for a tile of adjacent columns to be brought to L2: one address for each 128 bytes."""
    LINE: tl.constexpr = 128 // (source.dtype.element_ty.primitive_bitwidth // 8)
    rows = tl.minimum(m + tl.arange(0, ROWS), M - 1).to(tl.int64)
    cols = tl.minimum(n + tl.arange(0, COLS // LINE) * LINE, N - 1)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [source + rows[:, None] * row_stride + cols[None, :]],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def _finish(acc, m, n, tile_m, c, epilogue, RELU: tl.constexpr, ADD: tl.constexpr,
            DESCRIPTOR: tl.constexpr, BLOCK_M: tl.constexpr, WIDTH: tl.constexpr):  # fmt: skip
    """The epilogue of ``BLOCK_M x WIDTH`` sums at ``(m, n)``, and their store."""
    rows = m + tl.arange(0, BLOCK_M)
    cols = n + tl.arange(0, WIDTH)
    inside = (rows < c.rows)[:, None] & (cols < c.cols)[None, :]
    row = rows.to(tl.int64)[:, None]
    if epilogue.bias is not None:
        bias = tl.load(epilogue.bias + cols, mask=cols < c.cols, other=0.0)
        acc += bias.to(tl.float32)[None, :]
    if RELU:
        acc = tl.where(acc < 0.0, 0.0, acc)  # NaN stays
    if epilogue.mask is not None:
        offsets = row * epilogue.mask_row + cols.to(tl.int64)[None, :] * epilogue.mask_col
        a = tl.load(epilogue.mask + offsets, mask=inside, other=0.0).to(tl.float32)
        acc = tl.where(a <= 0.0, 0.0, acc)  # the gradient of a NaN passes
    if epilogue.sums is not None:
        sums = epilogue.sums + tile_m.to(tl.int64) * c.cols
        tl.store(sums + cols, tl.sum(acc, 0), mask=cols < c.cols)
    if DESCRIPTOR:
        c.data.store([m, n], acc.to(c.data.dtype))
    else:
        place = c.data + row * c.row_stride + cols[None, :]
        if ADD:
            acc += tl.load(place, mask=inside, other=0.0).to(tl.float32)
        tl.store(place, acc.to(c.data.dtype.element_ty), mask=inside)


# How the work is shared is no reason to compile again.
@triton.jit(do_not_specialize=["parts", "programs"])
def product_kernel(
    a,
    a_outer,
    a_inner,
    b,
    b_outer,
    b_inner,
    c,
    c_row,
    bias,
    mask,
    mask_row,
    mask_col,
    sums,
    M,
    N,
    K,
    parts,
    programs,
    A_K_INNER: tl.constexpr,
    B_K_INNER: tl.constexpr,
    A_ALIGN: tl.constexpr,
    B_ALIGN: tl.constexpr,
    C_ALIGN: tl.constexpr,
    A_DESCRIPTOR: tl.constexpr,
    B_DESCRIPTOR: tl.constexpr,
    C_DESCRIPTOR: tl.constexpr,
    RELU: tl.constexpr,
    ADD: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    PIECES: tl.constexpr,
    FLATTEN: tl.constexpr,
    FETCH_MASK: tl.constexpr,
):
    """``C = epilogue(A B)``.

    ``a`` is (M, K), stored with K inner (``A_K_INNER``) or M inner; ``b`` is (K, N), stored with K
    inner or N inner. ``*_outer`` and ``*_inner`` are the strides in that sense; ``*_ALIGN``
    elements divide the outer stride and the inner size. ``c`` has adjacent columns. With ``parts``
    > 1, K is cut and part i goes to rows ``i * M`` and following of ``c``, for a sum afterwards.
    ``sums`` gets the column sums of each row of tiles. ``ADD`` adds to what ``c`` holds.

    ``FLATTEN`` makes one loop of tiles and steps, so that the operands of the next tile are on
    their way during the epilogue of this one. All parts take as many steps for that; those beyond
    K are zeros. ``FETCH_MASK`` brings the mask of a tile to L2 while its products are computed;
    its columns must be adjacent.
    """
    # What the caller knows of alignment, told so that loads are as wide as they can be.
    left = Operand(a, a_outer // A_ALIGN * A_ALIGN, a_inner, M if A_K_INNER else K,
                   (K if A_K_INNER else M) // A_ALIGN * A_ALIGN)  # fmt: skip
    right = Operand(b, b_outer // B_ALIGN * B_ALIGN, b_inner, N if B_K_INNER else K,
                    (K if B_K_INNER else N) // B_ALIGN * B_ALIGN)  # fmt: skip
    c_row = c_row // C_ALIGN * C_ALIGN
    cols = N // C_ALIGN * C_ALIGN
    epilogue = Epilogue(bias, mask, mask_row, mask_col, sums)

    HALF: tl.constexpr = BLOCK_N // 2
    tiles = tl.cdiv(M, BLOCK_M) * tl.cdiv(N, BLOCK_N)
    steps = tl.cdiv(tl.cdiv(K, BLOCK_K), parts)  # of each part
    for work in tl.range(tl.program_id(0), tiles * parts, programs, flatten=FLATTEN):
        part = work // tiles
        tile_m, tile_n = _tile_position(work % tiles, M, N, BLOCK_M, BLOCK_N, GROUP_M)
        m, n = tile_m * BLOCK_M, tile_n * BLOCK_N
        if FETCH_MASK:
            _fetch_ahead(mask, mask_row, m, n, M, N, BLOCK_M, BLOCK_N)
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for step in tl.range(steps):
            k = (part * steps + step) * BLOCK_K
            rows = _load_tile(left, m, k, BLOCK_M, BLOCK_K, A_K_INNER, A_DESCRIPTOR)
            columns = _load_tile(right, n, k, BLOCK_N, BLOCK_K, B_K_INNER, B_DESCRIPTOR).T
            acc = tl.dot(rows, columns, acc, input_precision=PRECISION)

        if C_DESCRIPTOR:
            target = Target(c, c_row, M, cols)
        else:
            target = Target(c + part.to(tl.int64) * M * c_row, c_row, M, cols)
        # fmt: off
        if PIECES == 1:
            _finish(acc, m, n, tile_m, target, epilogue, RELU, ADD, C_DESCRIPTOR, BLOCK_M, BLOCK_N)
        else:
            halves = _halves(acc, BLOCK_M, BLOCK_N)
            for half in tl.static_range(2):
                left_n = n + half * HALF
                if PIECES == 2:
                    _finish(halves[half], m, left_n, tile_m, target, epilogue, RELU, ADD,
                            C_DESCRIPTOR, BLOCK_M, HALF)
                else:
                    quarters = _halves(halves[half], BLOCK_M, HALF)
                    for quarter in tl.static_range(2):
                        _finish(quarters[quarter], m, left_n + quarter * (HALF // 2), tile_m,
                                target, epilogue, RELU, ADD, C_DESCRIPTOR, BLOCK_M, HALF // 2)
        # fmt: on


@triton.jit
def sum_parts_kernel(
    source,
    out,
    parts,
    size,
    ADD: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``out[i] = sum over p of source[p, i]``, in a fixed order; adds to ``out`` with ``ADD``."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(0, parts, PARTS):
        p = part + tl.arange(0, PARTS)
        inside = (p < parts)[:, None] & (i < size)[None, :]
        offsets = p.to(tl.int64)[:, None] * size + i[None, :]
        total += tl.sum(tl.load(source + offsets, mask=inside, other=0.0), 0)
    if ADD:
        total += tl.load(out + i, mask=i < size, other=0.0).to(tl.float32)
    tl.store(out + i, total.to(out.dtype.element_ty), mask=i < size)


# Nor is the length of a batch.
@triton.jit(do_not_specialize=["rows", "parts"])
def column_sums_kernel(
    source,
    row_stride,
    col_stride,
    rows,
    cols,
    out,
    contributions,
    arrived,
    parts,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """``out = source.sum(0)``, in a fixed order.

    Grid: blocks of ``COLS`` columns, ``parts`` that share the rows. ``contributions`` holds
    ``parts x cols`` float32, ``arrived`` a zero for each block; both are ``None`` for one part.
    """
    block, part = tl.program_id(0), tl.program_id(1)
    n = block * COLS + tl.arange(0, COLS)
    acc = tl.zeros((ROWS, COLS), tl.float32)
    for row in tl.range(part * ROWS, rows, parts * ROWS, num_stages=_AHEAD):
        m = row + tl.arange(0, ROWS)
        offsets = m.to(tl.int64)[:, None] * row_stride + n.to(tl.int64)[None, :] * col_stride
        inside = (m < rows)[:, None] & (n < cols)[None, :]
        acc += tl.load(source + offsets, mask=inside, other=0.0).to(tl.float32)
    total = tl.sum(acc, 0)
    if contributions is not None:
        size = tl.cast(cols, tl.int64)
        tl.store(contributions + part * size + n, total, mask=n < cols)
        if not is_last(arrived + block, parts):
            return
        total = tl.zeros((COLS,), tl.float32)
        for p in range(parts):
            total += tl.load(contributions + p * size + n, mask=n < cols, other=0.0,
                             cache_modifier=".cg")  # fmt: skip
    tl.store(out + n, total.to(out.dtype.element_ty), mask=n < cols)


@triton.jit
def masked_kernel(
    grad,
    grad_row,
    grad_col,
    a,
    a_row,
    a_col,
    dh,
    sums,
    M,
    N,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """``dh = grad * (a > 0)``, contiguous, and the column sums of each row of tiles.

    Grid: the tiles, row after row; a second dimension would end at 65,535 of them.
    """
    tiles_n = tl.cdiv(N, BLOCK_N)
    tile_m = tl.program_id(0) // tiles_n
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(0) % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (rows < M)[:, None] & (cols < N)[None, :]
    row, col = rows.to(tl.int64)[:, None], cols.to(tl.int64)[None, :]
    value = tl.load(grad + row * grad_row + col * grad_col, mask=inside, other=0.0)
    activation = tl.load(a + row * a_row + col * a_col, mask=inside, other=0.0)
    value = tl.where(activation.to(tl.float32) <= 0.0, 0.0, value.to(tl.float32))
    if sums is not None:
        tl.store(sums + tile_m.to(tl.int64) * N + cols, tl.sum(value, 0), mask=cols < N)
    tl.store(dh + row * N + cols[None, :], value.to(dh.dtype.element_ty), mask=inside)
