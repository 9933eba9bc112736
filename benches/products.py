"""The bare matrix product by each peer: ours, oneDNN's, torch's and NumPy's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from twolayer_kernels.backends.cpu import _cpu

from .works import Call, Product


def fused(product: Product) -> Call:
    a, b = product.operands
    c = torch.empty(a.shape[0], b.shape[1], dtype=product.dtype)

    def call() -> Tensor:
        _cpu.matmul(torch.get_num_threads(), a, b, c)
        return c

    return call


def onednn(product: Product) -> Call:
    """oneDNN's inner product with its operands as it likes them best: both adjacent along K."""
    a, b = product.operands
    a, weight = a.contiguous(), b.T.contiguous()

    def call() -> Tensor:
        c: Tensor = torch.ops.mkldnn._linear_pointwise(a, weight, None, "none", [], "")
        return c

    return call


def mm(product: Product) -> Call:
    a, b = product.operands
    return lambda: torch.mm(a, b)


def numpy(product: Product) -> Call:
    a, b = (t.numpy() for t in product.operands)
    return lambda: a @ b


PEERS: dict[str, Callable[[Product], Call]] = {
    "fused": fused,
    "onednn": onednn,
    "torch.mm": mm,
    "numpy": numpy,
}


def peers_of(product: Product) -> list[str]:
    return [p for p in PEERS if product.dtype != torch.bfloat16 or p != "numpy"]
