"""How the functions behave in autograd: what is saved, what may change, NaN, zeros and layouts."""

from __future__ import annotations

import importlib
import itertools
import math

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from twolayer_kernels.functional import linear_relu, two_layer

from .comparing import assert_equal, assert_same_bits
from .problems import BACKENDS, DTYPES, check_exact, dtype_id, fused, integers, plain, randoms
from .shapes import FEW_SHAPES, Shape, size_id

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.parametrize("backend", BACKENDS),
]

SHAPE = Shape(17, 40, 33, 10)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
each_recompute = pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recompute"])


def leaves_of(problem, needs=None):
    return {
        name: t.detach().clone().requires_grad_(needs is None or name in needs)
        for name, t in problem.inputs.items()
    }


# Running backward more than once.


@each_recompute
def test_retained_graph_gives_the_same_bits_twice(backend, recompute):
    problem = randoms(SHAPE, torch.float32, seed=1)
    leaves = leaves_of(problem)
    y = two_layer(**leaves, backend=backend, recompute=recompute)
    once, again = (
        torch.autograd.grad(y, list(leaves.values()), problem.grad_out, retain_graph=True)
        for _ in range(2)
    )
    for name, first, second in zip(leaves, once, again, strict=True):
        assert_same_bits(name, second, first)


def test_a_freed_graph_refuses(backend):
    problem = randoms(SHAPE, torch.float32, seed=1)
    y = two_layer(**leaves_of(problem), backend=backend)
    y.backward(problem.grad_out)
    with pytest.raises(RuntimeError, match="second time"):
        y.backward(problem.grad_out)


def test_gradients_accumulate(backend):
    problem = integers(SHAPE, torch.float32, seed=2)
    leaves = leaves_of(problem)
    for _ in range(2):
        two_layer(**leaves, backend=backend).backward(problem.grad_out)
    wanted = plain(problem)
    for name, leaf in leaves.items():
        assert_equal(name, leaf.grad, 2 * wanted[f"grad_{name}"])


def test_backward_leaves_the_incoming_gradient_alone(backend):
    problem = integers(SHAPE, torch.float32, seed=3)
    before = problem.grad_out.clone()
    fused(problem, backend)
    assert_same_bits("grad_y", problem.grad_out, before)


@each_dtype
@pytest.mark.parametrize("shape", FEW_SHAPES, ids=size_id)
def test_the_same_input_gives_the_same_bits(backend, shape, dtype):
    problem = randoms(shape, dtype, seed=4)
    first, second = fused(problem, backend), fused(problem, backend)
    for name in first:
        assert_same_bits(name, second[name], first[name])


# Changing tensors in place between forward and backward.


@pytest.mark.parametrize(
    ("changed", "recompute"),
    [*itertools.product(["x", "w1", "w2"], [False, True]), ("b1", True)],
)
def test_changing_a_saved_tensor_in_place_raises(backend, changed, recompute):
    leaves = leaves_of(randoms(SHAPE, torch.float32, seed=5))
    y = two_layer(**leaves, backend=backend, recompute=recompute)
    with torch.no_grad():
        leaves[changed].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("changed", ["x", "w", "a"])
def test_changing_a_saved_tensor_of_linear_relu_in_place_raises(backend, changed):
    leaves = leaves_of(randoms(SHAPE, torch.float32, op="linear_relu", seed=5))
    a = linear_relu(**leaves, backend=backend)
    with torch.no_grad():
        (leaves | {"a": a})[changed].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        a.sum().backward()


def test_the_output_and_the_last_bias_may_change_in_place(backend):
    problem = integers(SHAPE, torch.float32, seed=6)
    leaves = leaves_of(problem)
    y = two_layer(**leaves, backend=backend)
    with torch.no_grad():
        leaves["b2"].add_(1)
    y.add_(1).backward(problem.grad_out)
    for name, leaf in leaves.items():
        assert_equal(name, leaf.grad, plain(problem)[f"grad_{name}"])


# What is saved.


def saved_by(call):
    packed = []

    def pack(tensor):
        packed.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return packed


def owners(packed, leaves):
    """The names of the tensors whose memory was packed; shapes for those of nobody."""
    names = {t.untyped_storage().data_ptr(): name for name, t in leaves.items()}
    return sorted(
        names.get(t.untyped_storage().data_ptr(), f"new {tuple(t.shape)}") for t in packed
    )


FIRST = ("x", "w1", "b1")
ACTIVATION = f"new {(SHAPE.batch, SHAPE.hidden_features)}"


@pytest.mark.parametrize(
    ("needs", "recompute", "x_saved", "a_saved"),
    [
        (None, False, True, True),
        (None, True, True, False),
        (("w1",), False, True, True),
        (("w2",), False, False, True),
        (("w2",), True, True, False),
        (("b2",), False, False, False),
        (("b2",), True, False, False),
        (("w2", "b2"), False, False, True),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else str(value),
)
def test_saved_are_x_and_the_activation_and_nothing_else(
    backend, needs, recompute, x_saved, a_saved
):
    leaves = leaves_of(randoms(SHAPE, torch.float32, seed=7), needs)
    packed = saved_by(lambda: two_layer(**leaves, backend=backend, recompute=recompute))
    if backend == "torch":  # its relu and its second layer both keep the activation: one memory
        packed = list({t.untyped_storage().data_ptr(): t for t in packed}.values())
    kept = owners(packed, leaves)
    assert ("x" in kept) == x_saved
    assert [name for name in kept if name.startswith("new")] == [ACTIVATION] * a_saved
    assert len(kept) == len(set(kept))
    assert "b2" not in kept


def test_saved_by_linear_relu_are_x_w_and_the_result(backend):
    leaves = leaves_of(randoms(SHAPE, torch.float32, op="linear_relu", seed=7))
    packed = saved_by(lambda: linear_relu(**leaves, backend=backend))
    assert owners(packed, leaves) == [ACTIVATION, "w", "x"]


@pytest.mark.parametrize("op", ["two_layer", "linear_relu"])
def test_the_backend_is_asked_for_what_is_needed_and_no_more(monkeypatch, backend, op):
    # Else torch's own autograd asks.
    options = {"recompute": True} if backend == "torch" else {}
    if options and op == "linear_relu":
        pytest.skip("torch's own autograd asks")
    problem = randoms(SHAPE, torch.float32, op=op, seed=7)
    module = importlib.import_module(f"twolayer_kernels.backends.{backend}")
    original, asked = getattr(module, f"{op}_backward"), []

    def watched(*args):
        gradients = original(*args)
        asked.append((tuple(args[-1]), tuple(g is not None for g in gradients)))
        return gradients

    monkeypatch.setattr(module, f"{op}_backward", watched)
    names = list(problem.inputs)
    for flags in itertools.product([False, True], repeat=len(names)):
        if any(flags):
            asked.clear()
            fused(problem, backend, needs=tuple(itertools.compress(names, flags)), **options)
            assert asked == [(flags, flags)]


@each_recompute
def test_saved_tensors_may_come_back_in_another_layout(backend, recompute):
    """As from a hook that keeps them elsewhere, such as ``save_on_cpu``."""
    problem = integers(SHAPE, torch.float32, seed=8)

    def unpack(tensor):
        if tensor.dim() < 2:
            return tensor.clone()
        return torch.stack([tensor, tensor], dim=-1)[..., 0]  # both strides are 2 or more

    with saved_tensors_hooks(lambda tensor: tensor, unpack):
        results = fused(problem, backend, recompute=recompute)
    check_exact(problem, results)


# NaN, infinity and zero.


@each_dtype
def test_nan_stays_nan_and_its_gradient_passes(backend, dtype):
    problem = integers(SHAPE, dtype, op="linear_relu", seed=9)
    problem.inputs["x"][2, 5] = math.nan
    results, wanted = fused(problem, backend), plain(problem)
    assert results["y"][2].isnan().all()
    assert results["grad_x"].isfinite().all()
    for name in results:
        assert_equal(name, results[name], wanted[name])


@pytest.mark.parametrize("tensor", ["x", "w1", "w2", "b1", "b2"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@each_recompute
@each_dtype
def test_nan_and_infinity_spread_as_in_torch(backend, dtype, recompute, value, tensor):
    problem = integers(SHAPE, dtype, seed=10)
    problem.inputs[tensor].flatten()[7 % problem.inputs[tensor].numel()] = value
    results, wanted = fused(problem, backend, recompute=recompute), plain(problem)
    for name in results:
        assert_equal(name, results[name], wanted[name])


@each_dtype
@each_recompute
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_the_gradient_at_exactly_0_is_0(backend, dtype, recompute, zero):
    x = torch.full((5, 9), zero, dtype=dtype, requires_grad=True)
    w1 = torch.ones(20, 9, dtype=dtype, requires_grad=True)
    w2 = torch.ones(3, 20, dtype=dtype, requires_grad=True)
    two_layer(x, w1, w2, backend=backend, recompute=recompute).sum().backward()
    assert_equal("grad_x", x.grad, torch.zeros_like(x))
    assert_equal("grad_w1", w1.grad, torch.zeros_like(w1))


@pytest.mark.parametrize("form", ["grad_h[h < 0] = 0", "clamp(min=0)"])
def test_the_tutorials_forms_pass_the_gradient_at_0(backend, form):
    """Where they differ from ``torch.relu`` and from ours: h of exactly 0."""
    x, w = torch.zeros(1, 1, requires_grad=True), torch.ones(1, 1)
    if form == "clamp(min=0)":
        (x @ w.T).clamp(min=0).backward()
        theirs = x.grad.clone()
    else:
        grad_h, h = torch.ones(1, 1), x.detach() @ w.T
        grad_h[h < 0] = 0
        theirs = grad_h @ w
    x.grad = None
    linear_relu(x, w, backend=backend).backward()
    assert theirs.item() == 1
    assert x.grad.item() == 0
