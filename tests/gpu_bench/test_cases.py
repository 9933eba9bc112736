"""What is timed: the rows in their order, and how much work each is."""

from __future__ import annotations

import pytest

from benches.gpu.cases import BOTH, CASES, FORWARD, TRANSFORMER


def test_the_first_rows_are_the_most_important():
    assert [case.id for case in CASES[:3]] == [
        "forward+backward-64x1000x100x10-float32",
        "forward+backward-8192x2048x8192x2048-bfloat16",
        "forward+backward-4096x1024x4096x1024-float32",
    ]
    assert len({case.id for case in CASES}) == len(CASES)
    both = {case._replace(work=FORWARD) for case in CASES if case.work == BOTH}
    assert both == {case for case in CASES if case.work == FORWARD}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_operations_are_those_of_the_products(case):
    batch, in_features, hidden, out = case.shape
    first, second = 2 * batch * in_features * hidden, 2 * batch * hidden * out
    products = [first, second]
    if case.work == BOTH:
        products += [second, second, first] + [first] * case.input_gradient
    assert case.operations == sum(products)
    assert case.products == len(products)
    assert case.input_gradient == (case.work == BOTH and case.shape in TRANSFORMER)
