"""The matrix product ``C = epilogue(A B)`` that every layer of the general path is made of.

One persistent kernel: each program takes tiles of C in turn, in an order that keeps the rows of A
and the columns of B of neighbouring tiles in L2. Accumulation is in float32. The epilogue works on
the finished sums in registers, in up to four pieces of the tile, so that a large tile needs no more
registers for it than a small one.

Operands come through tensor descriptors (TMA) where their strides allow, else through pointers.
Either may be stored along K or across it; nothing is copied to transpose it.
"""

from __future__ import annotations

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


@triton.jit
def _load_tile(
    source,
    outer_stride,
    inner_stride,
    outer,
    inner,
    outer_size,
    inner_size,
    OUTER: tl.constexpr,
    INNER: tl.constexpr,
    DESCRIPTOR: tl.constexpr,
):
    """``OUTER x INNER`` elements from ``(outer, inner)`` on, zeros beyond the matrix."""
    if DESCRIPTOR:
        tile = source.load([outer, inner])
    else:
        rows = outer + tl.arange(0, OUTER)
        cols = inner + tl.arange(0, INNER)
        offsets = (
            rows.to(tl.int64)[:, None] * outer_stride + cols.to(tl.int64)[None, :] * inner_stride
        )
        inside = (rows < outer_size)[:, None] & (cols < inner_size)[None, :]
        tile = tl.load(source + offsets, mask=inside, other=0.0)
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
def _finish(
    acc,
    m,
    n,
    tile_m,
    c,
    c_row,
    bias,
    mask,
    mask_row,
    mask_col,
    sums,
    M,
    N,
    RELU: tl.constexpr,
    ADD: tl.constexpr,
    DESCRIPTOR: tl.constexpr,
    BLOCK_M: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The epilogue of ``BLOCK_M x WIDTH`` sums at ``(m, n)``, and their store."""
    rows = m + tl.arange(0, BLOCK_M)
    cols = n + tl.arange(0, WIDTH)
    inside = (rows < M)[:, None] & (cols < N)[None, :]
    if bias is not None:
        acc += tl.load(bias + cols, mask=cols < N, other=0.0).to(tl.float32)[None, :]
    if RELU:
        acc = tl.where(acc < 0.0, 0.0, acc)  # NaN stays
    if mask is not None:
        offsets = rows.to(tl.int64)[:, None] * mask_row + cols.to(tl.int64)[None, :] * mask_col
        a = tl.load(mask + offsets, mask=inside, other=0.0).to(tl.float32)
        acc = tl.where(a <= 0.0, 0.0, acc)  # the gradient of a NaN passes
    if sums is not None:
        tl.store(sums + tile_m.to(tl.int64) * N + cols, tl.sum(acc, 0), mask=cols < N)
    if DESCRIPTOR:
        c.store([m, n], acc.to(c.dtype))
    else:
        target = c + rows.to(tl.int64)[:, None] * c_row + cols[None, :]
        if ADD:
            acc += tl.load(target, mask=inside, other=0.0).to(tl.float32)
        tl.store(target, acc.to(c.dtype.element_ty), mask=inside)


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
    a_inner_size = K if A_K_INNER else M
    b_inner_size = K if B_K_INNER else N
    a_inner_size = a_inner_size // A_ALIGN * A_ALIGN
    b_inner_size = b_inner_size // B_ALIGN * B_ALIGN
    a_outer = a_outer // A_ALIGN * A_ALIGN
    b_outer = b_outer // B_ALIGN * B_ALIGN
    c_row = c_row // C_ALIGN * C_ALIGN
    n_size = N // C_ALIGN * C_ALIGN

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
            if A_K_INNER:
                left = _load_tile(a, a_outer, a_inner, m, k, M, a_inner_size, BLOCK_M, BLOCK_K,
                                  A_DESCRIPTOR)  # fmt: skip
            else:
                left = _load_tile(a, a_outer, a_inner, k, m, K, a_inner_size, BLOCK_K, BLOCK_M,
                                  A_DESCRIPTOR).T  # fmt: skip
            if B_K_INNER:
                right = _load_tile(b, b_outer, b_inner, n, k, N, b_inner_size, BLOCK_N, BLOCK_K,
                                   B_DESCRIPTOR).T  # fmt: skip
            else:
                right = _load_tile(b, b_outer, b_inner, k, n, K, b_inner_size, BLOCK_K, BLOCK_N,
                                   B_DESCRIPTOR)  # fmt: skip
            acc = tl.dot(left, right, acc, input_precision=PRECISION)

        target = c
        if not C_DESCRIPTOR:
            target = c + part.to(tl.int64) * M * c_row
        # fmt: off
        if PIECES == 1:
            _finish(acc, m, n, tile_m, target, c_row, bias, mask, mask_row, mask_col, sums, M,
                    n_size, RELU, ADD, C_DESCRIPTOR, BLOCK_M, BLOCK_N)
        else:
            halves = _halves(acc, BLOCK_M, BLOCK_N)
            for half in tl.static_range(2):
                left_n = n + half * HALF
                if PIECES == 2:
                    _finish(halves[half], m, left_n, tile_m, target, c_row, bias, mask, mask_row,
                            mask_col, sums, M, n_size, RELU, ADD, C_DESCRIPTOR, BLOCK_M, HALF)
                else:
                    quarters = _halves(halves[half], BLOCK_M, HALF)
                    for quarter in tl.static_range(2):
                        _finish(quarters[quarter], m, left_n + quarter * (HALF // 2), tile_m,
                                target, c_row, bias, mask, mask_row, mask_col, sums, M, n_size,
                                RELU, ADD, C_DESCRIPTOR, BLOCK_M, HALF // 2)
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
