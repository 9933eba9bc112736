"""Where torch's kernels would run, calls are torch's own operations: never slower than these."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from twolayer_kernels import FusedLinearReLU, FusedTwoLayer, TwoLayerNet, dispatch, explain
from twolayer_kernels.backends import torch as torch_backend

from .comparing import assert_same_bits

WIDTHS = (20, 30, 5)


@pytest.fixture(params=["by name", "by default"])
def backend(request, monkeypatch):
    """The ``backend`` argument that ends at torch's kernels: named, or on a device without ours."""
    if request.param == "by name":
        yield "torch"
        return
    monkeypatch.setattr(dispatch, "_BY_DEVICE", {})
    dispatch.choose.cache_clear()
    yield None
    dispatch.choose.cache_clear()


def pair(backend, **options):
    torch.manual_seed(0)
    plain = TwoLayerNet(*WIDTHS)
    fused = FusedTwoLayer(*WIDTHS, backend=backend, **options)
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def train(module, x, autocast=False):
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = module(x)
    y.float().square().sum().backward()
    return {"y": y.detach(), "x": x.grad} | {n: p.grad for n, p in module.named_parameters()}


def graph_of(t) -> list[str]:
    """The names of the functions that autograd would run, breadth first."""
    names, level = [], [t.grad_fn]
    while level:
        names += [node.name() for node in level]
        level = [n for node in level for n, _ in node.next_functions if n is not None]
    return names


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("shape", [(7, 20), (2, 3, 20), (20,)], ids=str)
def test_values_and_graph_are_the_plain_networks(backend, shape, autocast):
    plain, fused = pair(backend)
    x = torch.randn(shape)
    wanted, got = train(plain, x, autocast), train(fused, x, autocast)
    for name, t in got.items():
        assert_same_bits(name, t, wanted[name])
    assert graph_of(fused(x)) == graph_of(plain(x))


def test_one_layer_is_the_plain_one(backend):
    layer = FusedLinearReLU(20, 30, backend=backend)
    x = torch.randn(7, 20)
    assert graph_of(layer(x)) == graph_of(torch.relu(nn.functional.linear(x, *layer.parameters())))


def test_autocast_casts_a_weight_once(backend):
    """Torch keeps what it has cast until the region ends."""
    _, fused = pair(backend)
    with torch.autocast("cpu", torch.bfloat16):
        casts = []
        for _ in range(2):
            node = fused(torch.randn(7, 20)).grad_fn
            casts.append([n for n, _ in node.next_functions if n is not None][-1])
        first, second = (c.next_functions[0][0] or c for c in casts)
    assert first is second


def test_recompute_keeps_its_own_way(backend, monkeypatch):
    ran = []
    backward = torch_backend.two_layer_backward
    monkeypatch.setattr(
        torch_backend, "two_layer_backward", lambda *a: ran.append(1) or backward(*a)
    )
    _, fused = pair(backend, recompute=True)
    train(fused, torch.randn(7, 20))
    assert ran


def targets(module, x):
    counter = CompileCounterWithBackend("eager")
    torch.compiler.reset()
    torch.compile(module, backend=counter, fullgraph=True, dynamic=True)(x)
    (graph,) = counter.graphs
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


@pytest.mark.filterwarnings("default")
def test_a_compiler_looks_into_it(backend):
    _, fused = pair(backend)
    x = torch.randn(7, 20)
    assert not any("twolayer" in name for name in targets(fused, x))
    _, again = pair(backend, recompute=True)
    assert any("twolayer" in name for name in targets(again, x))


@pytest.mark.parametrize("may", [False, True])
def test_on_cuda_a_compiler_looks_into_it_unless_ours_may_be_faster(monkeypatch, may):
    class Backend:
        @staticmethod
        def may_be_faster(index, dtype):
            return may

    monkeypatch.setattr(dispatch, "_triton_for", lambda dtype: (Backend, ""))
    question = ("cuda", 0, torch.bfloat16)
    assert dispatch.is_certainly_torchs_own(*question, None) is not may
    assert dispatch.is_certainly_torchs_own(*question, "torch")
    assert not dispatch.is_certainly_torchs_own(*question, "triton")


def test_explain_names_no_operator_where_there_is_none():
    _, fused = pair("torch")
    with torch.profiler.profile():
        line = explain(fused, torch.randn(7, 20))
    assert line == "FusedTwoLayer: torch (named by the caller)"
