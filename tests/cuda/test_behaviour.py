"""How the kernels behave: NaN and zero, the same bits, graphs, streams, autocast, devices."""

from __future__ import annotations

import math

import pytest
import torch

from twolayer_kernels import FusedTwoLayer, TwoLayerNet
from twolayer_kernels.functional import linear_relu, two_layer

from ..comparing import assert_equal, assert_same_bits
from ..problems import OPS, check_exact, dtype_id, fused, integers, plain, randoms
from ..shapes import Shape, size_id
from .device import DEVICE, DTYPES, cast, decided, on_device, ours, require_cuda

require_cuda()

SHAPE = Shape(33, 70, 65, 10)
# Programs that share a sum: hidden features, the batch, and the K of a weight gradient.
SHARED = (Shape(64, 1000, 100, 10), Shape(2000, 64, 64, 64), Shape(4096, 264, 256, 320))
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
each_shared = pytest.mark.parametrize("shape", SHARED, ids=size_id)


def same(results, wanted):
    for name, t in results.items():
        assert_same_bits(name, t, wanted[name])


# NaN and zero.


@each_dtype
def test_nan_stays_nan_and_its_gradient_passes(path, dtype):
    problem = integers(SHAPE, dtype, seed=1)
    problem.inputs["x"][2, 5] = math.nan
    problem = on_device(problem)
    results, wanted = ours(problem), plain(problem)
    assert results["y"][2].isnan().all()
    for name, t in results.items():
        assert_equal(name, t, wanted[name])


@each_dtype
def test_the_gradient_at_zero_is_zero(path, dtype):
    problem = integers(SHAPE, dtype, bias="none", seed=2)
    problem.inputs["x"][:7] = 0
    problem = on_device(problem)
    results = ours(problem)
    assert not results["grad_x"][:7].any()
    check_exact(problem, results)


# The same bits.


@each_dtype
@each_shared
def test_the_same_input_gives_the_same_bits(shape, dtype):
    problem = decided(shape, dtype, seed=3)
    first, second, third = (fused(problem, "triton") for _ in range(3))
    same(second, first)
    same(third, first)


@each_dtype
@pytest.mark.parametrize("op", OPS)
def test_recompute_and_layout_of_memory_do_not_change_bits(op, dtype):
    """The second run finds other memory, so a read of what nobody wrote would show."""
    problem = on_device(randoms(SHAPE, dtype, op=op, seed=4))
    first = fused(problem, "triton")
    same(ours(problem), first)


# CUDA graphs.


def capture(step):
    """A graph of ``step`` and its results, after runs on a side stream that compile it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    return graph, results


def refill(problem, other):
    """Gives ``problem`` the values of ``other``, where it is."""
    with torch.no_grad():
        for name, t in problem.inputs.items():
            t.copy_(other.inputs[name])
        problem.grad_out.copy_(other.grad_out)


@pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recompute"])
@each_dtype
@each_shared
def test_a_graph_of_forward_and_backward_replays(shape, dtype, recompute):
    problem, other = decided(shape, dtype, seed=5), decided(shape, dtype, seed=6)
    wanted = [fused(p, "triton", recompute=recompute) for p in (problem, other)]
    graph, results = capture(lambda: fused(problem, "triton", recompute=recompute))
    for _ in range(3):
        for t in results.values():
            t.fill_(math.nan)
        graph.replay()
        same(results, wanted[0])
    refill(problem, other)
    graph.replay()
    same(results, wanted[1])


@each_shared
def test_a_graph_does_not_depend_on_an_earlier_one(shape):
    """What programs count their arrivals in must not be left to a graph that never ran."""
    problem = decided(shape, torch.float32, seed=7)
    wanted = fused(problem, "triton")
    unused, _ = capture(lambda: fused(problem, "triton"))
    graph, results = capture(lambda: fused(problem, "triton"))
    graph.replay()
    same(results, wanted)
    del unused


@each_shared
def test_two_graphs_at_once(shape):
    problems = [decided(shape, torch.float32, seed=seed) for seed in (8, 9)]
    wanted = [fused(problem, "triton") for problem in problems]
    captured = [capture(lambda problem=problem: fused(problem, "triton")) for problem in problems]
    streams = [torch.cuda.Stream() for _ in problems]
    torch.cuda.synchronize()
    for _ in range(50):
        for (graph, _), stream in zip(captured, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    for (_, results), expected in zip(captured, wanted, strict=True):
        same(results, expected)


# Streams.


@each_shared
def test_two_streams_at_once(shape):
    problems = [decided(shape, torch.float32, seed=seed) for seed in (10, 11)]
    wanted = [fused(problem, "triton") for problem in problems]
    streams = [torch.cuda.Stream() for _ in problems]
    torch.cuda.synchronize()
    for _ in range(20):
        results = []
        for problem, stream in zip(problems, streams, strict=True):
            with torch.cuda.stream(stream):
                results.append(fused(problem, "triton"))
        torch.cuda.synchronize()
        for got, expected in zip(results, wanted, strict=True):
            same(got, expected)


# Modules, autocast and devices.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=dtype_id)
def test_autocast_is_the_cast_by_hand(path, dtype):
    problem = on_device(randoms(SHAPE, torch.float32, seed=12))
    with torch.autocast(DEVICE, dtype):
        results = fused(
            type(problem)(problem.op, problem.inputs, problem.grad_out.to(dtype)), "triton"
        )
    by_hand = fused(cast(problem, dtype), "triton")
    assert results["y"].dtype == dtype
    for name, t in results.items():
        if name != "y":
            assert t.dtype == torch.float32
        assert_same_bits(name, t.to(dtype), by_hand[name])


def test_a_module_trains_as_the_plain_one():
    torch.manual_seed(13)
    net = TwoLayerNet(70, 65, 10, device=DEVICE)
    model = FusedTwoLayer(70, 65, 10, backend="triton", device=DEVICE)
    model.load_state_dict(net.state_dict())
    x, y = torch.randn(3, 11, 70, device=DEVICE), torch.randn(3, 11, 10, device=DEVICE)
    losses = []
    for module in (net, model):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(10):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(module(x), y)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_double_backward():
    problem = on_device(randoms(SHAPE, torch.float32, seed=14))
    gradients = []
    for backend in ("triton", "torch"):
        x, w1, w2, b1, b2 = (t.clone().requires_grad_() for t in problem.inputs.values())
        y = two_layer(x, w1, w2, b1, b2, backend=backend)
        (grad_x,) = torch.autograd.grad(y, x, problem.grad_out, create_graph=True)
        gradients.append(torch.autograd.grad(grad_x.square().sum(), (w1, w2)))
    for ours_, torchs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours_, torchs, rtol=1e-3, atol=1e-4)


def test_cpu_tensors_are_refused():
    x, w = torch.ones(5, 4), torch.ones(4, 4)
    with pytest.raises(NotImplementedError, match="cuda"):
        two_layer(x, w, w, backend="triton")
    with pytest.raises(NotImplementedError, match="cuda"):
        linear_relu(x, w, backend="triton")


def test_a_device_that_is_not_the_current_one():
    require_cuda(devices=2)
    problem = integers(SHAPE, torch.float32, seed=15)
    with torch.cuda.device(0):
        there = on_device(problem, "cuda:1")
        results = fused(there, "triton")
    assert {t.device for t in results.values()} == {torch.device("cuda:1")}
    check_exact(there, results)


@pytest.mark.filterwarnings("default")  # importing Inductor of torch 2.11 warns
def test_compiled_with_cuda_graphs():
    """The compiler's own graphs warm up on their streams, with memory of their own."""
    model = FusedTwoLayer(1000, 100, 10, device="cuda", backend="triton")
    compiled = torch.compile(model, mode="reduce-overhead", fullgraph=True)
    x = torch.randn(64, 1000, device="cuda")
    for _ in range(4):
        torch.compiler.cudagraph_mark_step_begin()
        model.zero_grad()
        compiled(x).square().sum().backward()
        got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x).square().sum().backward()
    for gradient, parameter in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
