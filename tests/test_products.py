"""The product itself with every step of its epilogue, in both orientations, exactly."""

from __future__ import annotations

import itertools

import pytest
import torch

from twolayer_kernels.backends.cpu import _cpu

from .comparing import assert_equal
from .problems import DTYPES, dtype_id

# Full tiles, tails of both sides, several blocks of K, and rows for which B is used in place.
SIZES = [(24, 64, 64), (13, 37, 64), (7, 530, 9), (61, 5, 1100), (3, 70, 40), (4, 300, 700)]
# Dot products: rows in several heights, tails of both sides, several chains of sums.
FEW_ROWS = [(1, 35, 64), (3, 70, 41), (8, 37, 131), (14, 18, 230), (39, 5, 640), (2, 21, 13000)]
STEPS = ("row_bias", "col_bias", "relu", "mask", "row_sum", "col_sum")
EPILOGUES = [
    *((step,) for step in STEPS),
    *itertools.combinations(STEPS, 2),
    STEPS,
]


def product(dtype, size, epilogue, layout, threads):
    """Ours and the formula's in float64: c, row_sum, col_sum."""
    M, N, K = size
    generator = torch.Generator().manual_seed(1)

    def integers(*shape, largest=1):
        return torch.randint(-largest, largest + 1, shape, generator=generator).double()

    # So many ones that no sum leaves the integers that bfloat16 has.
    a, b = integers(M, K), integers(K, N)
    a[:, 100:] = 0
    values = {
        "row_bias": integers(M),
        "col_bias": integers(N),
        "relu": True,
        "mask": integers(M, N),
        "row_sum": integers(M),
        "col_sum": integers(N),
    }
    given = {name: values[name] for name in epilogue}
    c = a @ b
    if "row_bias" in given:
        c += values["row_bias"][:, None]
    if "col_bias" in given:
        c += values["col_bias"]
    if "relu" in given:
        c = c.relu()
    if "mask" in given:
        c = torch.where(values["mask"] <= 0, 0, c)
    wanted = {"c": c}
    for name, axis in (("row_sum", 1), ("col_sum", 0)):
        if name in given:
            wanted[name] = given[name] + c.sum(axis)

    def laid_out(t, by_column=layout == "columns"):
        t = t.to(dtype)
        return t.T.contiguous().T if by_column and t.dim() == 2 else t

    mine = {
        name: value.clone() if name.endswith("_sum") else laid_out(value)
        for name, value in given.items()
        if name != "relu"
    }
    out = laid_out(torch.full((M, N), torch.nan))
    b = laid_out(b, by_column=layout == "along_k")
    _cpu.matmul(threads, a.to(dtype), b, out, relu="relu" in given, **mine)
    return wanted, {"c": out} | {name: mine[name] for name in wanted if name != "c"}


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize(
    ("size", "layout"),
    [
        *itertools.product(SIZES, ("rows", "columns")),
        *((size, "along_k") for size in FEW_ROWS),
    ],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value)),
)
def test_every_epilogue(dtype, size, layout):
    for epilogue, threads in itertools.product(EPILOGUES, (1, 3)):
        wanted, results = product(dtype, size, epilogue, layout, threads)
        for name in wanted:
            label = f"{name} of {'+'.join(epilogue)} on {threads} threads"
            assert_equal(label, results[name], wanted[name].to(results[name].dtype))


# Rows that are copied in several blocks for several blocks of columns, with one and more of K; few
# rows beside a B in rows, with ends of all sides.
COPIED = [(200, 600, 130), (230, 530, 1101), (530, 300, 1040)]
IN_PLACE = [
    (M, N, K) for M, N in ((1, 33), (5, 64), (6, 90), (13, 16), (24, 130)) for K in (9, 510)
]


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("size", COPIED + IN_PLACE, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("by_column", [False, True], ids=["a_in_rows", "a_in_columns"])
def test_every_term_counts(dtype, size, by_column):
    """Small whole numbers: the sums are exact, and few enough for bfloat16 to hold."""
    M, N, K = size
    generator = torch.Generator().manual_seed(2)
    a, b = (
        torch.randint(-1, 2, shape, generator=generator).to(dtype) for shape in ((M, K), (K, N))
    )
    wanted = a.double() @ b.double()
    assert wanted.abs().max() <= 256
    if by_column:
        a = a.T.contiguous().T
    for threads in (1, 3):
        out = torch.full((M, N), torch.nan, dtype=dtype)
        _cpu.matmul(threads, a, b, out)
        assert_equal(f"{threads} threads", out, wanted.to(dtype))
