"""How the functions may be called: grad modes, autocast, leading dimensions, gradients' layouts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from twolayer_kernels import FusedLinearReLU, FusedTwoLayer
from twolayer_kernels.functional import linear_relu, two_layer

from .comparing import assert_equal, assert_same_bits
from .problems import BACKENDS, DTYPES, dtype_id, exact, fused, integers, plain, randoms
from .shapes import EMPTY_SHAPES, FEW_SHAPES, LAYOUTS, Shape, size_id
from .sound_torch import sound_torch

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.parametrize("backend", BACKENDS),
]

SHAPE = Shape(24, 40, 33, 10)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)


def parameters(problem):
    return [
        problem.inputs[name].detach().clone().requires_grad_() for name in ("w1", "w2", "b1", "b2")
    ]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_grad_there_is_no_graph(backend, mode):
    problem = integers(SHAPE, torch.float32, seed=1)
    x = problem.inputs["x"]
    weights = parameters(problem)
    with mode():
        y = two_layer(x, *weights, backend=backend)
        a = linear_relu(x, weights[0], weights[2], backend=backend)
    assert not y.requires_grad
    assert not a.requires_grad
    assert y.is_inference() == (mode is torch.inference_mode)
    assert_equal("y", y, exact(problem)["y"].float())
    assert_equal("a", a, exact(problem)["a"].float())


def test_inputs_made_in_inference_mode_work_without_grad(backend):
    with torch.inference_mode():
        problem = integers(SHAPE, torch.float32, seed=2)
    with torch.no_grad():
        y = two_layer(**problem.inputs, backend=backend)
    assert_equal("y", y, exact(problem)["y"].float())


@pytest.mark.parametrize("shape", FEW_SHAPES, ids=size_id)
@each_dtype
def test_the_graph_changes_no_bit_of_the_result(backend, shape, dtype):
    problem = randoms(shape, dtype, seed=3)
    with sound_torch(dtype):
        y = two_layer(**problem.inputs, backend=backend)
    assert_same_bits("y", y, fused(problem, backend)["y"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=dtype_id)
@pytest.mark.parametrize("autocast_dtype", [torch.bfloat16, torch.float16], ids=dtype_id)
def test_autocast_is_that_of_linear(backend, dtype, autocast_dtype):
    plain_module = nn.Linear(40, 10, dtype=dtype)
    two, one = (
        FusedTwoLayer(40, 33, 10, dtype=dtype, backend=backend),
        FusedLinearReLU(40, 10, dtype=dtype, backend=backend),
    )
    x = torch.randn(24, 40, dtype=dtype)
    with torch.autocast("cpu", autocast_dtype):
        wanted = plain_module(x).dtype
        y, a = two(x), one(x)
    assert wanted == (autocast_dtype if dtype == torch.float32 else dtype)
    assert y.dtype == a.dtype == wanted
    (y.sum() + a.sum()).backward()
    for parameter in (*two.parameters(), *one.parameters()):
        assert parameter.grad.dtype == dtype
        assert parameter.grad.isfinite().all()


def test_autocast_mixes_dtypes_as_linear_does(backend):
    module = FusedTwoLayer(40, 33, 10, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(torch.randn(24, 40, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16


def test_autocast_names_the_fault_and_not_the_dtype_it_casts(backend):
    module = FusedTwoLayer(4, 3, 2, backend=backend)
    x = torch.ones(5, 6, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="in_features = 6"):
        module(x)


def test_autocast_accepts_no_integers(backend):
    module = FusedTwoLayer(4, 3, 2, backend=backend)
    x = torch.ones(5, 4, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match="x must be one of"):
        module(x)


@pytest.mark.parametrize(
    "leading", [(), (24,), (4, 6), (2, 3, 4), (1, 24), (0,), (3, 0), (0, 0, 2)], ids=str
)
@pytest.mark.parametrize("graph", [True, False], ids=["graph", "no_graph"])
def test_leading_dimensions(backend, leading, graph):
    problem = integers(SHAPE, torch.float32, seed=4)
    count = torch.Size(leading).numel()
    x = problem.inputs["x"][:count].reshape(*leading, 40)
    grad_y = problem.grad_out[:count].reshape(*leading, 10)
    leaves = (
        [x.clone().requires_grad_(), *parameters(problem)]
        if graph
        else [x, *[p.detach() for p in parameters(problem)]]
    )
    y = two_layer(*leaves, backend=backend)
    a = linear_relu(leaves[0], leaves[1], leaves[3], backend=backend)
    wanted = exact(problem)
    assert_equal("y", y.detach(), wanted["y"][:count].reshape(*leading, 10).float())
    assert_equal("a", a.detach(), wanted["a"][:count].reshape(*leading, 33).float())
    if graph:
        (grad_x,) = torch.autograd.grad(y, leaves[0], grad_y)
        wanted_x = wanted["grad_x"][:count].reshape(*leading, 40).float()
        assert_equal("grad_x", grad_x, wanted_x)


def test_leading_dimensions_that_no_view_can_merge(backend):
    problem = integers(SHAPE, torch.float32, seed=5)
    x = problem.inputs["x"].reshape(4, 6, 40).transpose(0, 1)
    y = two_layer(x, *parameters(problem), backend=backend)
    wanted = exact(problem)["y"].float().reshape(4, 6, 10).transpose(0, 1)
    assert_equal("y", y.detach(), wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", ["two_layer", "linear_relu"])
def test_layouts_of_the_incoming_gradient(backend, op, layout):
    problem = integers(SHAPE, torch.float32, op=op, layout={"grad": layout}, seed=6)
    results, wanted = fused(problem, backend), plain(problem)
    for name in results:
        assert_equal(name, results[name], wanted[name])


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_a_scalar_loss_expands_its_gradient(backend, reduce):
    problem = integers(SHAPE._replace(batch=16, out_features=8), torch.float32, seed=7)
    ours, torchs = ([problem.inputs["x"], *parameters(problem)] for _ in range(2))
    getattr(two_layer(*ours, backend=backend), reduce)().backward()
    linear = nn.functional.linear
    x, w1, w2, b1, b2 = torchs
    getattr(linear(torch.relu(linear(x, w1, b1)), w2, b2), reduce)().backward()
    for name, mine, theirs in zip(("w1", "w2", "b1", "b2"), ours[1:], torchs[1:], strict=True):
        assert_equal(name, mine.grad, theirs.grad)


@pytest.mark.parametrize("shape", [s for s in EMPTY_SHAPES if s.batch == 0], ids=size_id)
@each_dtype
def test_gradients_of_an_empty_batch_are_zeros(backend, shape, dtype):
    results = fused(integers(shape, dtype), backend)
    for name in ("grad_w1", "grad_w2", "grad_b1", "grad_b2"):
        assert_equal(name, results[name], torch.zeros_like(results[name]))


@pytest.mark.parametrize("tensor", ["x", "w1", "w2", "b1", "b2", "grad"])
def test_lazily_negated_tensors(backend, tensor):
    """The imaginary part of a conjugate is memory with a note to negate it."""

    def negated(t):
        view = torch.complex(torch.zeros_like(t), -t).conj().imag
        assert view.is_neg()
        return view

    problem = integers(SHAPE, torch.float32, seed=8)
    wanted = plain(problem)
    if tensor == "grad":
        object.__setattr__(problem, "grad_out", negated(problem.grad_out))
    else:
        problem.inputs[tensor] = negated(problem.inputs[tensor])
    results = fused(problem, backend)
    for name in results:
        assert_equal(name, results[name], wanted[name])


def test_results_are_new_memory(backend):
    problem = integers(SHAPE, torch.float32, seed=9)
    results = fused(problem, backend)
    pointers = [t.untyped_storage().data_ptr() for t in results.values()]
    pointers += [t.untyped_storage().data_ptr() for t in problem.inputs.values()]
    assert len(set(pointers)) == len(pointers)
