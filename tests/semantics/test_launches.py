"""The kernels as the launcher compiles them, run by ttsem: values, bounds and races.

ttsem executes the compiler's input on the CPU, launch by launch. It refuses an access outside of
the tensors that a kernel was given, and two programs that access the same element, one of them to
write it. The order that a count of arrivals makes is nothing it knows, so where programs share a
sum it reports that one reads what another wrote.
"""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from ttsem import sanitize

from twolayer_kernels.backends import triton as backend
from twolayer_kernels.backends.triton import arrivals, layers, narrow, tiles

from ..compiled.planting import plant
from ..interpreted.forcing import HOPPER, NARROW_KERNELS, SMALL
from ..problems import Problem, Results, check_exact, dtype_id, integers
from ..shapes import Shape

pytestmark = pytest.mark.usefixtures("poisoned_memory")

ARCHITECTURES = [80, 90]
SHAPE = Shape(150, 30, 70, 10)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)


@pytest.fixture(params=ARCHITECTURES)
def arch(request, force):
    force.device(request.param, 3)
    return request.param


@pytest.fixture(autouse=True)
def _masks_are_not_asked_for_ahead(monkeypatch):
    """The PTX for that is nothing ttsem knows; it changes no value."""
    monkeypatch.setattr(layers, "_FETCHES_MASKS", False)


@pytest.fixture(autouse=True)
def _fresh_counters():
    arrivals.forget()
    yield
    arrivals.forget()


def checked(arch, function, races="raise"):
    """The results of a call, all of whose launches were looked at."""
    with sanitize.session(cc=arch, cuda_is_cpu=False, races=races) as session:
        results = function()
    assert session.launches > 0
    assert session.races_unchecked == 0
    return results, session.races


def two_layers(problem: Problem) -> Results:
    x, w1, w2, b1, b2 = (problem.inputs[name] for name in ("x", "w1", "w2", "b1", "b2"))
    y, a = backend.two_layer_forward(x, w1, w2, b1, b2, True)
    needs = (True,) * 5
    gradients = backend.two_layer_backward(problem.grad_out, x, w1, w2, b1, a, needs)
    names = ("grad_x", "grad_w1", "grad_w2", "grad_b1", "grad_b2")
    return {"y": y} | dict(zip(names, gradients, strict=True))


@each_dtype
def test_layer_by_layer(force, arch, dtype):
    force.path("general")
    for kernel, tile in SMALL.items():
        force.tile(kernel, tile, 3 if kernel == "wgrad" else 1)
    problem = integers(SHAPE, dtype, seed=1)
    check_exact(problem, checked(arch, lambda: two_layers(problem))[0])


def in_narrow_kernels(force, arch, parts, dtype=torch.float32):
    force.path("narrow")
    for kernel in NARROW_KERNELS:
        force.narrow_tile(kernel, tiles.narrow_tiles_for(kernel, "tf32", HOPPER)[0], parts)
    problem = integers(SHAPE, dtype, seed=2)
    results, found = checked(arch, lambda: two_layers(problem), "record" if parts > 1 else "raise")
    check_exact(problem, results)
    return found


@each_dtype
def test_narrow(force, arch, dtype):
    in_narrow_kernels(force, arch, 1, dtype)


@each_dtype
def test_narrow_sums_shared_by_parts(force, arch, dtype):
    """Only where shares are kept does a program read what another one wrote."""
    races = in_narrow_kernels(force, arch, 3, dtype)
    assert [race.buffer for race in races] == ["contributions", "shares"]
    assert all("loads it" in race.detail for race in races)


@each_dtype
def test_one_layer(arch, dtype):
    problem = integers(SHAPE, dtype, op="linear_relu", seed=3)
    x, w, b = (problem.inputs[name] for name in ("x", "w", "b"))

    def call():
        a = backend.linear_relu_forward(x, w, b)
        gradients = backend.linear_relu_backward(problem.grad_out, x, w, a, (True,) * 3)
        return {"y": a} | dict(zip(("grad_x", "grad_w", "grad_b"), gradients, strict=True))

    check_exact(problem, checked(arch, call)[0])


@pytest.mark.parametrize("parts", [1, 3])
def test_added_to_what_is_there(force, arch, parts):
    """Read through descriptors on sm_90; what is stored through them, ttsem loses."""
    force.tile("wgrad", SMALL["wgrad"], parts)
    problem = integers(Shape(150, 32, 70, 16), torch.float32, seed=4)
    x, total = problem.inputs["x"], torch.full((16, 32), 3.0)
    checked(arch, lambda: layers.weight_gradient(problem.grad_out, x, add_to=total))
    assert torch.equal(total, problem.grad_out.T @ x + 3)


def test_column_sums(arch):
    grad = integers(SHAPE, torch.float32, seed=5).grad_out
    assert torch.equal(checked(arch, lambda: layers.column_sums(grad))[0], grad.sum(0))


# Planted.


@triton.jit
def _rows_too_many(target, row, col, value, ROWS: tl.constexpr, COLS: tl.constexpr):
    r = row + tl.arange(0, ROWS)
    c = col + tl.arange(0, COLS)
    place = target.data + r[:, None] * target.row_stride + c[None, :]
    inside = (r < target.rows + 1)[:, None] & (c < target.cols)[None, :]
    tl.store(place, value.to(target.data.dtype.element_ty), mask=inside)


@triton.jit
def _always_the_first_rows(target, row, col, value, ROWS: tl.constexpr, COLS: tl.constexpr):
    r = tl.arange(0, ROWS)
    c = col + tl.arange(0, COLS)
    place = target.data + r[:, None] * target.row_stride + c[None, :]
    inside = (r < target.rows)[:, None] & (c < target.cols)[None, :]
    tl.store(place, value.to(target.data.dtype.element_ty), mask=inside)


@pytest.mark.parametrize(
    ("faulty", "complaint"),
    [
        (_rows_too_many, "past the end of the tensor passed as `a`"),
        (_always_the_first_rows, "both touch element"),
    ],
    ids=["a store past the end", "two programs that store the same"],
)
def test_a_planted_fault_is_found(force, arch, monkeypatch, faulty, complaint):
    plant(monkeypatch, narrow, "_store", faulty)
    with pytest.raises(sanitize.KernelFault, match=complaint):
        in_narrow_kernels(force, arch, 1)
