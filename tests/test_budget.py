"""Tier 3: random inputs, within twice torch's own error and one rounding band."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .problems import (
    BACKENDS,
    DTYPES,
    OPS,
    check_budget,
    check_exact,
    draw_count,
    dtype_id,
    fused,
    integers,
    randoms,
)
from .shapes import BENCH_SHAPES, FEW_SHAPES, LAYOUTS, MIXED_SHAPES, Shape, size_id

pytestmark = pytest.mark.usefixtures("poisoned_memory")

# The reference rounds the exact result once: it is right or wrong, and tier 1 tells.
each_backend = pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "reference"])
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
each_op = pytest.mark.parametrize("op", OPS)


def check(backend, shape, dtype, *, seed, recompute=None, **options):
    if dtype == torch.float64 and np.finfo(np.longdouble).nmant <= np.finfo(np.float64).nmant:
        pytest.skip("this platform has no type wider than float64 to measure its errors in")
    problems = [
        randoms(shape, dtype, seed=1000 * seed + draw, **options)
        for draw in range(draw_count(shape, dtype))
    ]
    extra = {} if recompute is None else {"recompute": recompute}
    check_budget(problems, [fused(problem, backend, **extra) for problem in problems])


@each_backend
@each_dtype
@each_op
@pytest.mark.parametrize("shape", MIXED_SHAPES, ids=size_id)
def test_over_shapes(backend, shape, op, dtype):
    check(backend, shape, dtype, op=op, seed=1)


# An exact result wider than float64 takes seconds for the middle shape.
@each_backend
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (shape, dtype)
        for shape in BENCH_SHAPES
        for dtype in DTYPES
        if shape.hidden_features <= (256 if dtype == torch.float64 else 512)
    ],
    ids=lambda value: dtype_id(value) if isinstance(value, torch.dtype) else size_id(value),
)
def test_on_the_benches_shapes(backend, shape, dtype):
    check(backend, shape, dtype, seed=2)


@each_backend
@each_dtype
@pytest.mark.parametrize("bias", ["none", "first", "second"])
@pytest.mark.parametrize("shape", FEW_SHAPES, ids=size_id)
def test_missing_biases(backend, shape, bias, dtype):
    check(backend, shape, dtype, bias=bias, seed=3)


@each_backend
@each_dtype
@pytest.mark.parametrize("shape", FEW_SHAPES, ids=size_id)
def test_recompute(backend, shape, dtype):
    check(backend, shape, dtype, recompute=True, seed=4)


@each_backend
@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(backend, layout, dtype):
    check(backend, Shape(33, 70, 65, 10), dtype, layout=layout, seed=5)


sizes = st.one_of(st.integers(0, 9), st.integers(10, 80))
shapes = st.builds(Shape, sizes, sizes, sizes, sizes)
layouts = st.fixed_dictionaries(
    {name: st.sampled_from(list(LAYOUTS)) for name in ("x", "w1", "w2", "w", "b1", "b2", "grad")}
)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60)
@given(
    shape=shapes,
    layout=layouts,
    dtype=st.sampled_from(DTYPES),
    bias=st.sampled_from(["both", "none", "first", "second"]),
    op=st.sampled_from(OPS),
    seed=st.integers(0, 2**31),
)
def test_any_shape_and_layouts_are_exact(backend, shape, layout, dtype, bias, op, seed):
    problem = integers(shape, dtype, op=op, bias=bias, layout=layout, seed=seed)
    check_exact(problem, fused(problem, backend))
