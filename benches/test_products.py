"""Times the six bare matrix products of a step against oneDNN, torch and NumPy."""

from __future__ import annotations

from typing import Any

import pytest

from . import products
from .timing import REPEATS, check_close, time_call
from .works import PRODUCTS, Product

ROWS = [
    pytest.param(product, peer, id=f"{product.id}-{peer}-{repeat}")
    for product in PRODUCTS
    for repeat in range(REPEATS)
    for peer in products.peers_of(product)
]


@pytest.mark.parametrize(("product", "peer"), ROWS)
def test_product(benchmark: Any, product: Product, peer: str) -> None:
    call = products.PEERS[peer](product)
    a, b = product.operands
    check_close(call(), a.double() @ b.double(), product.dtype)
    benchmark.extra_info.update(
        row=product.id, table="product", peer=peer, operations=product.operations
    )
    time_call(benchmark, call)
