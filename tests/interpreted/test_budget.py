"""Tier 3: random inputs, within twice torch's own error and one rounding band.

Here ``tl.dot`` is NumPy's product in float32: TF32 and its three-part form are for a GPU to judge.
"""

from __future__ import annotations

import pytest
import torch

from ..problems import check_budget, draw_count, dtype_id, fused, randoms
from ..shapes import FEW_SHAPES, Shape, size_id

pytestmark = pytest.mark.usefixtures("poisoned_memory")

each_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=dtype_id
)


def check(shape, dtype, *, seed, **options):
    draws = min(4, draw_count(shape, dtype))
    problems = [randoms(shape, dtype, seed=1000 * seed + i, **options) for i in range(draws)]
    check_budget(problems, [fused(problem, "triton") for problem in problems])


@each_dtype
@pytest.mark.parametrize("shape", [*FEW_SHAPES, Shape(40, 256, 33, 10)], ids=size_id)
def test_two_layers(path, shape, dtype):
    check(shape, dtype, seed=1)


@each_dtype
@pytest.mark.parametrize("shape", FEW_SHAPES, ids=size_id)
def test_one_layer(shape, dtype):
    check(shape, dtype, op="linear_relu", seed=2)
