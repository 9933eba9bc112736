"""torch.compile without a graph break, torch.export, AOTInductor, and the registered operators."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter, EagerAndRecordGraphs
from torch.func import functional_call, grad, vmap
from torch.overrides import TorchFunctionMode

from twolayer_kernels import FusedLinearReLU, FusedTwoLayer, fuse
from twolayer_kernels.functional import linear_relu, two_layer

COMPILERS = ("eager", "aot_eager", "inductor")

pytestmark = [
    # torch's own: inductor and the tracer still use what torch itself has deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients(model, x):
    """The output and all gradients, for a loss that weighs each output differently."""
    x = x.clone().requires_grad_()
    y = model(x)
    weights = torch.arange(1.0, y.numel() + 1).reshape(y.shape).to(y.dtype)
    leaves = [x, *(p for p in model.parameters() if p.requires_grad)]
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), leaves)]


def assert_same(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        torch.testing.assert_close(a, e)


MODELS = {
    "two_layer": lambda: FusedTwoLayer(20, 30, 5),
    "no_bias": lambda: FusedTwoLayer(20, 30, 5, bias=False),
    "recompute": lambda: FusedTwoLayer(20, 30, 5, recompute=True),
    "backend_torch": lambda: FusedTwoLayer(20, 30, 5, backend="torch"),
    "linear_relu": lambda: FusedLinearReLU(20, 30),
    "in_a_model": lambda: nn.Sequential(FusedTwoLayer(20, 30, 5), nn.Tanh(), FusedLinearReLU(5, 4)),
}


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_training_compiles_into_one_graph(make, compiler):
    torch.manual_seed(0)
    model = make()
    x = torch.randn(7, 20)
    compiled = torch.compile(model, fullgraph=True, backend=compiler)
    assert_same(gradients(compiled, x), gradients(model, x))


@pytest.mark.parametrize("shape", [(20,), (3, 20), (2, 3, 20), (2, 0, 20)], ids=str)
def test_any_leading_dimensions(shape):
    model = FusedTwoLayer(20, 30, 5)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(shape)
    assert_same(gradients(compiled, x), gradients(model, x))


def test_frozen_weights_and_input_without_gradient():
    model = FusedTwoLayer(20, 30, 5)
    model.linear1.requires_grad_(False)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(7, 20)
    compiled(x).sum().backward()
    assert model.linear1.weight.grad is None
    got = model.linear2.weight.grad.clone()
    model.zero_grad()
    model(x).sum().backward()
    torch.testing.assert_close(got, model.linear2.weight.grad)


def test_autocast_inside_the_graph():
    model = FusedTwoLayer(20, 30, 5)

    def run(model, x):
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    x = torch.randn(7, 20)
    y = torch.compile(run, fullgraph=True, backend="aot_eager")(model, x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, run(model, x))


def test_a_batch_that_changes_compiles_twice_at_most():
    counter = CompileCounter()
    compiled = torch.compile(FusedTwoLayer(20, 30, 5), fullgraph=True, backend=counter)
    for batch in (2, 3, 5, 9, 17, 33, 100):
        assert compiled(torch.randn(batch, 20)).shape == (batch, 5)
    assert counter.frame_count <= 2


def test_inference_keeps_no_activation():
    """Without a graph the operator is told so, and its second result is empty."""
    seen = []

    def record(graph, example_inputs):
        seen.extend(n for n in graph.graph.nodes if "two_layer" in str(n.target))
        return graph.forward

    model = FusedTwoLayer(20, 30, 5)
    with torch.no_grad():
        torch.compile(model, fullgraph=True, backend=record)(torch.randn(7, 20))
    (node,) = seen
    assert node.args[5] is False


def test_a_transform_inside_the_graph():
    model, x = FusedTwoLayer(20, 30, 5), torch.randn(7, 20)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(p, sample):
        return functional_call(model, p, (sample,)).square().sum()

    per_sample = vmap(grad(loss), (None, 0))
    compiled = torch.compile(per_sample, fullgraph=True, backend="aot_eager")(parameters, x)
    expected = per_sample(parameters, x)
    for name, value in expected.items():
        torch.testing.assert_close(compiled[name], value)


class DoublesProducts(TorchFunctionMode):
    def __torch_function__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        return result * 2 if function is nn.functional.linear else result


@contextmanager
def another_linear(models):
    linear = nn.functional.linear
    with mock.patch.object(nn.functional, "linear", lambda *given: linear(*given) * 2):
        yield


@contextmanager
def another_relu(models):
    relu = torch.relu
    with mock.patch.object(torch, "relu", lambda given: relu(given) * 2):
        yield


@contextmanager
def another_forward(models):
    for model in models:
        model.linear1.forward = lambda x, model=model: x @ model.linear1.weight.T
    yield
    for model in models:
        del model.linear1.forward


@contextmanager
def a_function_mode(models):
    with DoublesProducts():
        yield


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear1, self.relu, self.linear2 = nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5)

    def forward(self, x):
        return self.linear2(self.relu(self.linear1(x)))


def as_module(plain):
    return FusedTwoLayer.from_linears(copy.deepcopy(plain.linear1), copy.deepcopy(plain.linear2))


def by_fuse(plain):
    model = copy.deepcopy(plain)
    assert [site.fused for site in fuse(model)] == [True]
    return model


@pytest.mark.parametrize("change", [another_linear, another_relu, another_forward, a_function_mode])
@pytest.mark.parametrize("fused_from", [as_module, by_fuse])
def test_what_changes_after_compilation_is_seen(fused_from, change):
    torch.manual_seed(0)
    plain = Plain()
    model = fused_from(plain)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(7, 20)
    before = plain(x)
    torch.testing.assert_close(compiled(x), before)
    with change((plain, model)):
        during = plain(x)
        assert not torch.allclose(during, before)
        torch.testing.assert_close(compiled(x), during)
    torch.testing.assert_close(compiled(x), before)


def test_a_function_mode_inside_the_graph():
    model = FusedTwoLayer(20, 30, 5)

    def call(x):
        with DoublesProducts():
            return model(x)

    x = torch.randn(7, 20)
    torch.testing.assert_close(torch.compile(call, backend="aot_eager")(x), call(x))


def test_a_default_device_is_no_reason_for_torchs_operations():
    recorder = EagerAndRecordGraphs()
    with torch.device("cpu"):
        torch.compile(FusedTwoLayer(20, 30, 5), backend=recorder)(torch.randn(7, 20))
    assert "twolayer_kernels.two_layer" in recorder.graphs[0].code


def test_bad_arguments_are_still_named():
    compiled = torch.compile(two_layer, backend="eager")
    with pytest.raises(Exception, match="w1"):
        compiled(torch.ones(5, 4), torch.ones(3, 3), torch.ones(2, 3))


# ---- the operators themselves ----


def samples(dtype, batch, biases):
    torch.manual_seed(0)

    def new(*shape):
        return torch.randn(shape).to(dtype).requires_grad_()

    x, w1, w2 = new(batch, 6), new(7, 6), new(3, 7)
    return (x, w1, w2, new(7), new(3)) if biases else (x, w1, w2, None, None)


each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
each_batch = pytest.mark.parametrize("batch", [0, 1, 64])


@each_dtype
@each_batch
@pytest.mark.parametrize("biases", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("keep", [True, False], ids=["keep", "recompute"])
def test_opcheck_two_layer(dtype, batch, biases, keep):
    arguments = (*samples(dtype, batch, biases), keep, None)
    torch.library.opcheck(torch.ops.twolayer_kernels.two_layer, arguments)


@each_dtype
@each_batch
@pytest.mark.parametrize("needs", [[True] * 5, [False, True, True, False, False]], ids=str)
@pytest.mark.parametrize("kept", [True, False], ids=["keep", "recompute"])
def test_opcheck_two_layer_backward(dtype, batch, needs, kept):
    x, w1, w2, b1, b2 = (t.detach() for t in samples(dtype, batch, True))
    _, a = torch.ops.twolayer_kernels.two_layer(x, w1, w2, b1, b2, True, None)
    grad_y = torch.randn(batch, 3).to(dtype)
    torch.library.opcheck(
        torch.ops.twolayer_kernels.two_layer_backward,
        (grad_y, x, w1, w2, b1, a if kept else None, needs, None),
    )


@each_dtype
@each_batch
def test_opcheck_linear_relu(dtype, batch):
    x, w, _, b, _ = samples(dtype, batch, True)
    torch.library.opcheck(torch.ops.twolayer_kernels.linear_relu, (x, w, b, None))
    x, w, b = (t.detach() for t in (x, w, b))
    a = linear_relu(x, w, b)
    torch.library.opcheck(
        torch.ops.twolayer_kernels.linear_relu_backward,
        (torch.randn_like(a), x, w, a, [True, False, True], None),
    )


# ---- export ----


@pytest.fixture
def exported():
    torch.manual_seed(0)
    model = FusedTwoLayer(20, 30, 5).eval()
    with torch.no_grad():
        program = torch.export.export(
            model, (torch.randn(7, 20),), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}
        )
    return model, program


@pytest.mark.parametrize("batch", [2, 7, 100])
def test_an_exported_program_runs_at_any_batch(exported, batch):
    model, program = exported
    x = torch.randn(batch, 20)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x))


def test_an_exported_program_holds_the_fused_operator(exported, tmp_path):
    _, program = exported
    assert "twolayer_kernels.two_layer" in str(program.graph)
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2")
    x = torch.randn(3, 20)
    torch.testing.assert_close(loaded.module()(x), program.module()(x))


def test_aot_inductor_runs_an_exported_program(exported, tmp_path):
    model, program = exported
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "net.pt2"))
    run = torch._inductor.aoti_load_package(path)
    for batch in (7, 33):
        x = torch.randn(batch, 20)
        with torch.no_grad():
            torch.testing.assert_close(run(x), model(x))
