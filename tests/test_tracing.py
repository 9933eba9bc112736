"""Tracers, modes and tools that look at operators see the fused network as the plain one."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from twolayer_kernels import FusedLinearReLU, FusedTwoLayer, TwoLayerNet, explain, fuse
from twolayer_kernels.functional import linear_relu, two_layer

OPERATOR = torch.ops.twolayer_kernels.two_layer.default


@pytest.fixture
def pair():
    torch.manual_seed(0)
    plain, fused = TwoLayerNet(6, 9, 4), FusedTwoLayer(6, 9, 4)
    fused.load_state_dict(plain.state_dict())
    return fused, plain


@pytest.fixture
def x():
    return torch.linspace(-2, 2, 7 * 6).reshape(7, 6).sin()


def weights(model):
    one, two = model.linear1, model.linear2
    return one.weight, two.weight, one.bias, two.bias


# ---- fx ----


class Holder(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.one = net, FusedLinearReLU(4, 3)

    def forward(self, x):
        return self.one(self.net(x + 1)).sum(-1)


def test_symbolic_trace_of_a_model(pair, x):
    model = Holder(pair[0])
    graph = torch.fx.symbolic_trace(model)
    called = {node.target for node in graph.graph.nodes if node.op == "call_function"}
    assert {two_layer, linear_relu} <= called
    torch.testing.assert_close(graph(x), model(x), rtol=0, atol=0)
    assert graph.net.linear1.weight is model.net.linear1.weight
    graph(x).sum().backward()
    assert model.net.linear1.weight.grad is not None
    compiled = torch.compile(graph, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))


def test_symbolic_trace_of_the_functions(pair, x):
    w1, w2, b1, b2 = (w.detach() for w in weights(pair[0]))

    def run(x, w1, w2):
        return two_layer(x, w1, w2, b1=None, b2=None, recompute=True, backend="cpu")

    graph = torch.fx.symbolic_trace(run)
    (node,) = (n for n in graph.graph.nodes if n.target is two_layer)
    assert node.kwargs == {"recompute": True, "backend": "cpu"}
    torch.testing.assert_close(graph(x, w1, w2), run(x, w1, w2), rtol=0, atol=0)
    graph = torch.fx.symbolic_trace(lambda x: two_layer(x, w1, w2, b1, b2))
    torch.testing.assert_close(graph(x), two_layer(x, w1, w2, b1, b2), rtol=0, atol=0)


def test_symbolic_trace_calls_layers_that_must_be_called(pair, x):
    for model in pair:
        model.linear1.register_forward_hook(lambda m, inputs, output: 2 * output)
    graphs = [torch.fx.symbolic_trace(model) for model in pair]
    torch.testing.assert_close(graphs[0](x), graphs[1](x))
    torch.testing.assert_close(graphs[0](x), pair[1](x))


def test_symbolic_trace_of_a_fused_sequence(pair, x):
    plain = nn.Sequential(pair[1].linear1, nn.ReLU(), pair[1].linear2)
    expected = plain(x)
    fuse(plain)
    torch.testing.assert_close(torch.fx.symbolic_trace(plain)(x), expected)


def test_an_interpreter_runs_the_graph(pair, x):
    seen = []

    class Watch(torch.fx.Interpreter):
        def call_function(self, target, args, kwargs):
            seen.append(target)
            return super().call_function(target, args, kwargs)

    y = Watch(torch.fx.symbolic_trace(pair[0])).run(x)
    assert two_layer in seen
    torch.testing.assert_close(y, pair[0](x), rtol=0, atol=0)
    shapes = torch.fx.passes.shape_prop.ShapeProp(torch.fx.symbolic_trace(pair[0]))
    torch.testing.assert_close(shapes.propagate(x), pair[0](x), rtol=0, atol=0)


# ---- jit.trace ----

jit = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@jit
def test_a_traced_module(pair, x):
    fused, plain = pair
    traced = torch.jit.trace(fused, x)
    kinds = [n.kind() for n in traced.inlined_graph.nodes() if "empty" in n.kind()]
    assert kinds == []
    for batch in (7, 1, 30):
        inputs = torch.randn(batch, 6)
        torch.testing.assert_close(traced(inputs), plain(inputs))
    results = []
    for model in (traced, plain):
        inputs = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(model(inputs).square().sum(), inputs)
        results.append(grad)
    torch.testing.assert_close(*results)


@jit
def test_a_traced_module_is_right_without_this_library(pair, x, tmp_path):
    fused, plain = pair
    torch.jit.save(torch.jit.trace(fused, x), tmp_path / "net.pt")
    torch.save((x, plain(x)), tmp_path / "values.pt")
    code = """
import sys, torch, warnings
warnings.simplefilter("ignore")
net, (x, y) = torch.jit.load(sys.argv[1]), torch.load(sys.argv[2])
torch.testing.assert_close(net(x), y)
assert "twolayer_kernels" not in sys.modules
"""
    files = [str(tmp_path / name) for name in ("net.pt", "values.pt")]
    subprocess.run([sys.executable, "-c", code, *files], check=True, timeout=120)


@jit
def test_a_traced_function_of_a_named_backend(pair, x):
    arguments = [w.detach() for w in weights(pair[0])]
    traced = torch.jit.trace(lambda x: two_layer(x, *arguments, backend="cpu"), x)
    assert "twolayer_kernels::two_layer" in str(traced.graph)
    saved = io.BytesIO()
    torch.jit.save(traced, saved)
    saved.seek(0)
    inputs = torch.randn(20, 6)
    expected = two_layer(inputs, *arguments, backend="cpu")
    for run in (traced, torch.jit.load(saved)):
        torch.testing.assert_close(run(inputs), expected, rtol=0, atol=0)


# ---- make_fx and fake tensors ----


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_make_fx(pair, x, mode, grad):
    fused, plain = pair

    def run(model):
        def function(x):
            if not grad:
                return model(x)
            x = x.detach().requires_grad_()
            y = model(x)
            return y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])

        return function

    with torch.set_grad_enabled(grad):
        allow = {"_allow_non_fake_inputs": True} if mode != "real" else {}
        graph = make_fx(run(fused), tracing_mode=mode, **allow)(x)
        targets = {node.target for node in graph.graph.nodes}
        assert OPERATOR in targets
        assert torch.ops.aten.empty.memory_format not in targets
        inputs = torch.randn(7, 6)
        torch.testing.assert_close(graph(inputs), run(plain)(inputs))


@pytest.mark.parametrize("model_is_fake", [True, False], ids=["fake_model", "real_model"])
def test_a_fake_forward_and_backward(pair, model_is_fake):
    fused = pair[0]
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = FusedTwoLayer(6, 9, 4) if model_is_fake else fused
        x = torch.randn(3, 5, 6, requires_grad=True)
        y = model(x)
        assert type(y) is FakeTensor
        assert y.shape == (3, 5, 4)
        assert y.device.type == "cpu"
        if model_is_fake:
            y.sum().backward()
            assert type(x.grad) is type(model.linear1.weight.grad) is FakeTensor
            assert x.grad.shape == x.shape
    outside = FusedTwoLayer(6, 9, 4)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.randn(7, 6))
        copies = [mode.from_tensor(w) for w in weights(outside)]
    assert type(two_layer(fake, *copies)) is FakeTensor  # no mode is active any more
    assert type(linear_relu(fake, copies[0], copies[2])) is FakeTensor


def test_a_fake_input_needs_fake_weights_as_for_the_plain_network(pair):
    for model in pair:
        with FakeTensorMode(), pytest.raises(Exception, match="convert all Tensors to FakeTensors"):
            model(torch.randn(7, 6))


def test_a_mode_that_begins_before_backward(pair, x):
    """The forward saw nothing; the backward asks again."""
    counts = []
    for model in pair:
        y = model(x)
        with FlopCounterMode(display=False) as counter:
            y.sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


# ---- FLOPs, profiles, modes ----


@pytest.mark.parametrize("frozen", [(), ("linear1",), ("linear2",)], ids=str)
@pytest.mark.parametrize("needs_x", [True, False], ids=["x", "no_x"])
@pytest.mark.parametrize("call", ["module", "function"])
def test_flops_are_the_plain_networks(pair, frozen, needs_x, call):
    counts = []
    for model in pair:
        for name in frozen:
            model.get_submodule(name).requires_grad_(False)
        x = torch.randn(8, 6, requires_grad=needs_x)

        def run(model=model, x=x):
            if call == "function" and isinstance(model, FusedTwoLayer):
                return two_layer(x, *weights(model))
            return model(x)

        with FlopCounterMode(display=False) as forward:
            y = run()
        with FlopCounterMode(display=False) as both:
            run().sum().backward()
        with FlopCounterMode(display=False) as backward:
            y.sum().backward()
        counts.append([c.get_total_flops() for c in (forward, both, backward)])
    assert counts[0] == counts[1]
    assert counts[0][0] == 2 * 8 * (6 * 9 + 9 * 4)


def test_flops_of_linear_relu():
    layer, x = FusedLinearReLU(6, 9), torch.randn(8, 6, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 8 * 6 * 9


def test_second_derivatives_under_a_mode(pair, x):
    results = []
    for model in pair:
        with FlopCounterMode(display=False):
            inputs = x.clone().requires_grad_()
            w1, w2, b1, b2 = weights(model)
            if model is pair[0]:
                y = two_layer(inputs, w1, w2, b1, b2)
            else:
                y = F.linear(torch.relu(F.linear(inputs, w1, b1)), w2, b2)
            (g,) = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
            results.append(torch.autograd.grad(g.square().sum(), list(model.parameters())))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


class Log(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_the_operators(pair, x):
    fused, plain = pair
    with Log() as log:
        y = fused(x)
        y.sum().backward()
    assert OPERATOR in log.seen
    assert torch.ops.twolayer_kernels.two_layer_backward.default in log.seen
    torch.testing.assert_close(y, plain(x))
    with Log() as log:
        assert "as a registered operator" in explain(fused, x)
    with Log() as log, torch.no_grad():
        linear_relu(x, fused.linear1.weight)
    assert torch.ops.twolayer_kernels.linear_relu.default in log.seen


def test_a_dispatch_mode_that_changes_results(pair, x):
    class Zeros(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            return torch.utils._pytree.tree_map_only(torch.Tensor, torch.zeros_like, result)

    with Zeros(), torch.no_grad():
        assert not pair[0](x).any()


def test_a_function_mode_sees_what_it_sees_of_the_plain_network(pair, x):
    class Functions(TorchFunctionMode):
        def __init__(self):
            super().__init__()
            self.seen = []

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.seen.append(func)
            result = func(*args, **(kwargs or {}))
            return 2 * result if func is F.linear else result

    results, seen = [], []
    for model in pair:
        with Functions() as mode:
            results.append(model(x))
        seen.append([f for f in mode.seen if f in (F.linear, torch.relu)])
    assert seen[0] == seen[1] == [F.linear, torch.relu, F.linear]
    torch.testing.assert_close(*results)
    with Functions():
        assert "the function mode Functions is active" in explain(pair[0], x)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_default_device_changes_nothing(pair, x, device):
    fused, plain = pair
    with torch.device(device):
        y = fused(x)
        y.sum().backward()
        assert "torch's own operations" not in explain(fused, x)
    assert y.device.type == "cpu"
    torch.testing.assert_close(y, plain(x))
    assert fused.linear1.weight.grad.device.type == "cpu"


def test_a_profiler_sees_the_operators_and_their_shapes(pair, x):
    with torch.profiler.profile(record_shapes=True, with_flops=True) as profile:
        pair[0](x).sum().backward()
    rows = {row.key: row for row in profile.key_averages(group_by_input_shape=True)}
    assert rows["twolayer_kernels::two_layer"].input_shapes[:3] == [[7, 6], [9, 6], [4, 9]]
    assert rows["twolayer_kernels::two_layer_backward"].count == 1


def test_functionalization(pair, x):
    fused, plain = pair
    torch.testing.assert_close(torch.func.functionalize(fused)(x), plain(x))
    wrapped = torch._to_functional_tensor(x)
    y = torch._from_functional_tensor(two_layer(wrapped, *(w.detach() for w in weights(fused))))
    torch.testing.assert_close(y, plain(x))
    torch._enable_functionalization(reapply_views=False)
    try:
        y = two_layer(x, *(w.detach() for w in weights(fused)))
    finally:
        torch._disable_functionalization()
    if torch._is_functional_tensor(y):
        torch._sync(y)
        y = torch._from_functional_tensor(y)
    torch.testing.assert_close(y, plain(x))


def test_gradients_in_a_batch(pair, x):
    directions = torch.randn(5, 7, 4)
    results = []
    for model in pair:
        inputs = x.clone().requires_grad_()
        leaves = [inputs, *model.parameters()]
        results.append(
            torch.autograd.grad(model(inputs), leaves, directions, is_grads_batched=True)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results[-1] += (torch.autograd.functional.jacobian(model, x, vectorize=True),)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


# ---- export ----


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not_strict"])
@pytest.mark.parametrize("hooked", [True, False], ids=["hook", "no_hook"])
def test_export(pair, x, strict, hooked):
    fused, plain = pair
    if hooked:
        for model in pair:
            model.linear1.register_forward_hook(lambda m, inputs, output: 2 * output)
    shapes = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(fused, (x,), dynamic_shapes=shapes, strict=strict)
    assert ("twolayer_kernels.two_layer" in str(program.graph)) != hooked
    inputs = torch.randn(20, 6)
    torch.testing.assert_close(program.module()(inputs), plain(inputs))
    decomposed = program.run_decompositions()
    torch.testing.assert_close(decomposed.module()(inputs), plain(inputs))


def test_compiled_with_hooks(pair, x):
    results = []
    for model in pair:
        model.linear2.register_forward_hook(lambda m, inputs, output: 3 * output)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        y = compiled(x)
        y.sum().backward()
        results.append([y, *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_autograd(pair, x):
    results = []
    for model in pair:
        compiler = torch.compile(backend="eager")
        with torch._dynamo.compiled_autograd._enable(compiler):
            model(x).square().sum().backward()
        results.append([p.grad for p in model.parameters()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def _fused_sequential():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    assert [site.fused for site in fuse(model)] == [True]
    return model


SCRIPTED = {
    "two_layer": lambda: FusedTwoLayer(3, 5, 2),
    "no_bias": lambda: FusedTwoLayer(3, 5, 2, bias=False),
    "linear_relu": lambda: FusedLinearReLU(3, 5),
    "fused": _fused_sequential,
    "inside": lambda: nn.Sequential(FusedTwoLayer(3, 5, 2), nn.Tanh(), FusedLinearReLU(2, 3)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", SCRIPTED)
def test_a_script_needs_nothing_of_ours(kind, tmp_path):
    torch.manual_seed(0)
    model = SCRIPTED[kind]()
    torch.jit.script(model).save(tmp_path / "model.pt")
    loaded = torch.jit.load(tmp_path / "model.pt")
    kinds = {node.kind().partition(":")[0] for node in loaded.inlined_graph.nodes()}
    assert kinds <= {"aten", "prim"}
    x = torch.randn(7, 3)
    gradients = []
    for network in (model, loaded):
        y = network(x)
        gradients.append([y.detach(), *torch.autograd.grad(y.sum(), list(network.parameters()))])
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)
