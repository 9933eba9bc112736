"""Tier 2: gradients of first and second order by finite differences, and every subset of them."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from twolayer_kernels import functional

from .comparing import assert_same_bits
from .problems import BACKENDS, DTYPES, OPS, Problem, dtype_id, fused, integers, plain, randoms
from .shapes import Shape

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.parametrize("backend", BACKENDS),
]

SMALL = Shape(3, 5, 4, 2)
each_bias = pytest.mark.parametrize("bias", ["both", "none", "first", "second"])
each_recompute = pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recompute"])

ARGUMENTS = {"two_layer": ("x", "w1", "w2", "b1", "b2"), "linear_relu": ("x", "w", "b")}


def subsets(op: str) -> list[tuple[str, ...]]:
    names = ARGUMENTS[op]
    return [
        subset
        for size in range(1, len(names) + 1)
        for subset in itertools.combinations(names, size)
    ]


each_subset = pytest.mark.parametrize(
    ("op", "needs"),
    [(op, needs) for op in OPS for needs in subsets(op)],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)


def call_of(problem: Problem, backend: str, needs=None, **options):
    """A function of the tensors that need a gradient, and those tensors."""
    tensors = {name: t for name, t in problem.inputs.items() if t is not None}
    names = [name for name in tensors if needs is None or name in needs]
    leaves = [tensors[name].detach().requires_grad_() for name in names]
    function = getattr(functional, problem.op)

    def call(*values):
        return function(
            **(problem.inputs | dict(zip(names, values, strict=True))), backend=backend, **options
        )

    return call, leaves


def away_from_the_kink(shape=SMALL, **options) -> Problem:
    """A problem whose finite differences do not cross a ReLU's kink: |h| > 0.01 in all of it."""
    for seed in range(200):
        problem = randoms(shape, torch.float64, seed=seed, **options)
        x, w, b = (
            problem.inputs[name]
            for name in (("x", "w1", "b1") if problem.op == "two_layer" else ("x", "w", "b"))
        )
        h = x @ w.T if b is None else x @ w.T + b
        if (h.abs() > 0.01).all() and (h > 0).any() and (h < 0).any():
            return problem
    raise AssertionError("no seed keeps away from the kink")


@each_recompute
@each_bias
def test_two_layer(backend, bias, recompute):
    call, leaves = call_of(away_from_the_kink(bias=bias), backend, recompute=recompute)
    assert gradcheck(call, leaves)
    assert gradgradcheck(call, leaves)


@pytest.mark.parametrize("bias", ["both", "none"])
def test_linear_relu(backend, bias):
    call, leaves = call_of(away_from_the_kink(op="linear_relu", bias=bias), backend)
    assert gradcheck(call, leaves)
    assert gradgradcheck(call, leaves)


@pytest.mark.parametrize("layout", ["transposed", "every_other", "offset"])
@pytest.mark.parametrize("op", OPS)
def test_layouts(backend, op, layout):
    call, leaves = call_of(away_from_the_kink(op=op, layout=layout), backend)
    assert gradcheck(call, leaves)
    assert gradgradcheck(call, leaves)


@each_subset
def test_each_subset_twice_differentiable(backend, op, needs):
    call, leaves = call_of(away_from_the_kink(op=op), backend, needs)
    assert gradcheck(call, leaves)
    assert gradgradcheck(call, leaves)


@pytest.mark.parametrize("needs", subsets("two_layer"), ids="+".join)
def test_each_subset_twice_differentiable_with_recompute(backend, needs):
    call, leaves = call_of(away_from_the_kink(), backend, needs, recompute=True)
    assert gradgradcheck(call, leaves)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@each_subset
def test_each_subset_has_the_bits_of_the_full_run(backend, op, needs, dtype):
    problem = randoms(Shape(17, 70, 33, 10), dtype, op=op, seed=1)
    for options in [{}, {"recompute": True}] if op == "two_layer" else [{}]:
        full = fused(problem, backend, **options)
        some = fused(problem, backend, needs=needs, **options)
        assert_same_bits("y", some["y"], full["y"])
        for name in ARGUMENTS[op]:
            wanted = full[f"grad_{name}"] if name in needs else None
            assert_same_bits(f"grad_{name}", some[f"grad_{name}"], wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_recompute_has_the_bits_of_the_saved_activation(backend, dtype):
    if backend == "reference" and dtype != torch.float64:
        return  # it rounds the activation where it saves it, and not where it recomputes it
    problem = randoms(Shape(33, 70, 65, 10), dtype, seed=2)
    saved, recomputed = (fused(problem, backend, recompute=r) for r in (False, True))
    for name in saved:
        assert_same_bits(name, recomputed[name], saved[name])


@pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recompute"])
def test_third_order_is_torchs(backend, recompute):
    problem = away_from_the_kink()

    def third(function):
        leaves = {n: t.detach().requires_grad_() for n, t in problem.inputs.items()}
        y = function(**leaves)
        for _ in range(3):
            gradients = torch.autograd.grad(
                y.pow(3).sum(), list(leaves.values()), create_graph=True, materialize_grads=True
            )
            y = torch.cat([g.flatten() for g in gradients])
        return y

    def plain_call(x, w1, w2, b1, b2):
        linear = torch.nn.functional.linear
        return linear(torch.relu(linear(x, w1, b1)), w2, b2)

    ours = third(
        lambda **inputs: functional.two_layer(**inputs, recompute=recompute, backend=backend)
    )
    torch.testing.assert_close(ours, third(plain_call), rtol=1e-9, atol=1e-9)


def test_the_graph_of_create_graph_has_the_gradients_of_the_kernels(backend):
    """Integers: both ways are exact, so they must agree to the bit."""
    problem = integers(Shape(17, 40, 33, 10), torch.float64, seed=3)
    leaves = {n: t.detach().requires_grad_() for n, t in problem.inputs.items()}
    y = functional.two_layer(**leaves, backend=backend)
    gradients = torch.autograd.grad(y, list(leaves.values()), problem.grad_out, create_graph=True)
    wanted = plain(problem)
    for name, gradient in zip(leaves, gradients, strict=True):
        assert torch.equal(gradient, wanted[f"grad_{name}"]), name
