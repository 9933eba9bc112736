"""The peers of a row: one network and its data, and each way to run it as a call without arguments.

A call returns ``y``, or ``y`` and the gradients under their names. Gradients come from
``torch.autograd.grad`` in every peer, since a graph cannot be captured around ``.grad`` safely.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from twolayer_kernels import FusedTwoLayer, TwoLayerNet

from .cases import FORWARD, Case

Results = dict[str, Tensor]
Call = Callable[[], Results]


class Network:
    """The plain network of a row, its input, and the gradient of its output: all random."""

    def __init__(self, case: Case, device: str = "cuda", backend: str = "triton") -> None:
        batch, in_features, hidden, out = case.shape
        dtype = getattr(torch, case.dtype)
        torch.manual_seed(0)
        self.case, self.backend = case, backend
        self.plain = TwoLayerNet(in_features, hidden, out, device=device, dtype=dtype)
        self.x = torch.randn(batch, in_features, device=device).to(dtype)
        self.grad_y = torch.randn(batch, out, device=device).to(dtype)
        self.x.requires_grad_(case.input_gradient)

    def fused(self, recompute: bool = False, by_name: bool = True) -> FusedTwoLayer:
        """Ours, on the same parameters: the kernels by name, or what a user gets who names none."""
        linear1, linear2 = self.plain.linear1, self.plain.linear2
        backend = self.backend if by_name else None
        return FusedTwoLayer.from_linears(linear1, linear2, recompute=recompute, backend=backend)

    @property
    def wanted(self) -> dict[str, Tensor]:
        """What gradients are asked of."""
        first, second = self.plain.linear1, self.plain.linear2
        names = {
            "grad_w1": first.weight,
            "grad_w2": second.weight,
            "grad_b1": first.bias,
            "grad_b2": second.bias,
        }
        return names | ({"grad_x": self.x} if self.case.input_gradient else {})


def running(network: Network, model: nn.Module) -> Call:
    """The work of the row on ``model``."""
    x, grad_y, wanted = network.x, network.grad_y, network.wanted
    tensors = list(wanted.values())
    if network.case.work == FORWARD:

        def forward() -> Results:
            with torch.no_grad():
                return {"y": model(x)}

        return forward

    def forward_backward() -> Results:
        y = model(x)
        gradients = torch.autograd.grad(y, tensors, grad_y)
        return {"y": y.detach(), **dict(zip(wanted, gradients, strict=True))}

    return forward_backward


def replayed(call: Call) -> Call:
    """``call`` captured in a CUDA graph; what it returns is overwritten by the next replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()

    def replay() -> Results:
        graph.replay()
        return results

    return replay


def compiled(network: Network, **options: Any) -> Call:
    return running(network, torch.compile(network.plain, dynamic=False, **options))


def autotuned(network: Network) -> Call:
    """Graphs pay where calls are short; a large network's hold its memory, and gain nothing."""
    graphs = "" if network.case.small else "-no-cudagraphs"
    return compiled(network, mode=f"max-autotune{graphs}")


def products(network: Network) -> Call:
    """The bare matrix products of the work, each into memory that is there: nothing can be less.

    They are products of random operands, not the network's results.
    """
    x, grad_y = network.x.detach(), network.grad_y
    w1, w2 = network.plain.linear1.weight.detach(), network.plain.linear2.weight.detach()
    batch, hidden = x.shape[0], w1.shape[0]
    a, dh = (torch.randn(batch, hidden, device=x.device).to(x.dtype).relu_() for _ in range(2))
    pairs = [(x, w1.T), (a, w2.T)]
    if network.case.work != FORWARD:
        pairs += [(grad_y, w2), (grad_y.T, a), (dh.T, x)]
    if network.case.input_gradient:
        pairs.append((dh, w1))
    work = [(one, other, torch.mm(one, other)) for one, other in pairs]

    def call() -> Results:
        for one, other, out in work:
            torch.mm(one, other, out=out)
        return {}

    with torch.no_grad():
        call()
    return call


EAGER, CONTROL, COMPILED, AUTOTUNED = "eager", "eager again", "compile", "compile max-autotune"
GRAPH, PRODUCTS = "eager graph", "products"
OURS, RECOMPUTE, OUR_GRAPH = "ours", "ours recompute", "ours graph"
DEFAULT = "default"  # ours as a user gets it: no backend named

PEERS: dict[str, Callable[[Network], Call]] = {
    OURS: lambda network: running(network, network.fused()),
    EAGER: lambda network: running(network, network.plain),
    DEFAULT: lambda network: running(network, network.fused(by_name=False)),
    PRODUCTS: lambda network: products(network),
    GRAPH: lambda network: replayed(running(network, network.plain)),
    OUR_GRAPH: lambda network: replayed(running(network, network.fused())),
    RECOMPUTE: lambda network: running(network, network.fused(recompute=True)),
    CONTROL: lambda network: running(network, network.plain),
    COMPILED: lambda network: compiled(network),
    AUTOTUNED: lambda network: autotuned(network),
}


def exact(network: Network) -> Results:
    """The results in float64."""
    net, case = network.plain, network.case
    x, grad_y = network.x.detach().double(), network.grad_y.double()
    w1, b1, w2, b2 = (
        t.detach().double()
        for t in (net.linear1.weight, net.linear1.bias, net.linear2.weight, net.linear2.bias)
    )
    a = torch.addmm(b1, x, w1.T).relu_()
    results = {"y": torch.addmm(b2, a, w2.T)}
    if case.work == FORWARD:
        return results
    results["grad_w2"], results["grad_b2"] = grad_y.T @ a, grad_y.sum(0)
    dh = (grad_y @ w2) * (a > 0)
    results["grad_w1"], results["grad_b1"] = dh.T @ x, dh.sum(0)
    if case.input_gradient:
        results["grad_x"] = dh @ w1
    return results


# By the median element and by the norm; the latter leaves room for the samples whose ReLU is
# decided by rounding: there the gradient jumps, in every peer.
_BANDS = {"float32": (1e-5, 0.02), "tf32": (5e-3, 0.1), "bfloat16": (3e-2, 0.1)}


_LOOKED_AT = 1 << 20  # a median sorts all elements


def _some(t: Tensor) -> Tensor:
    """Elements from all over a tensor."""
    return t.flatten()[:: 1 + t.numel() // _LOOKED_AT].double()


def errors(results: Results, exacts: Results) -> dict[str, float]:
    """The median distance from the exact result, in units of the result's root mean square."""
    found = {}
    for name, wanted in exacts.items():
        size = wanted.square().mean().sqrt().item()
        found[name] = (_some(results[name]) - _some(wanted)).abs().median().item() / size
    return found


def check(case: Case, results: Results, exacts: Results) -> dict[str, float]:
    """The errors; a peer that does other work raises. The precise budgets are the tests'."""
    found = errors(results, exacts)
    median_band, norm_band = _BANDS[case.precision]
    for name, wanted in exacts.items():
        distance = torch.linalg.vector_norm(results[name].double() - wanted)
        by_norm = (distance / torch.linalg.vector_norm(wanted)).item()
        right = found[name] <= median_band and by_norm <= norm_band
        if not right or math.isnan(by_norm):
            raise ArithmeticError(f"{name} is wrong: median {found[name]:.1e}, norm {by_norm:.1e}")
    return found
