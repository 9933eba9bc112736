"""The NumPy front end: the three tiers' exact and random parts, layouts, subsets and errors."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch

import twolayer_kernels.numpy as tk

from .problems import Problem, check_budget, check_exact, draw_count, integers, plain, randoms
from .shapes import ARRAY_LAYOUTS, EMPTY_SHAPES, FEW_SHAPES, MIXED_SHAPES, Shape, size_id

pytestmark = pytest.mark.usefixtures("poisoned_memory")

DTYPES = (torch.float32, torch.float64, torch.float16)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
each_op = pytest.mark.parametrize("op", ["two_layer", "linear_relu"])
SHAPE = Shape(17, 40, 33, 10)


def arrays_of(problem: Problem) -> dict[str, np.ndarray | None]:
    tensors = problem.inputs | {"grad": problem.grad_out}
    return {name: None if t is None else t.numpy() for name, t in tensors.items()}


def fused(problem: Problem, *, layout="contiguous", needs=None, saved=True):
    """The results of the NumPy functions as tensors, from inputs in a layout."""
    laid_out = {
        name: None if array is None else ARRAY_LAYOUTS[layout](array)
        for name, array in arrays_of(problem).items()
    }
    grad = laid_out.pop("grad")
    names = list(laid_out)
    if needs is None:
        needs = tuple(array is not None for array in laid_out.values())
    if problem.op == "linear_relu":
        y = tk.linear_relu(**laid_out)
        gradients = tk.linear_relu_backward(grad, laid_out["x"], laid_out["w"], y, needs)
    else:
        y, a = tk.two_layer_forward(**laid_out)
        x, w1, w2, b1, b2 = laid_out.values()
        np.testing.assert_array_equal(tk.two_layer(x, w1, w2, b1, b2), y)
        gradients = tk.two_layer_backward(grad, x, w1, w2, b1, a if saved else None, needs)
    results = {"y": y} | {f"grad_{n}": g for n, g in zip(names, gradients, strict=True)}
    return {name: None if r is None else torch.from_numpy(r) for name, r in results.items()}


@each_op
@each_dtype
@pytest.mark.parametrize("shape", [*MIXED_SHAPES, *EMPTY_SHAPES], ids=size_id)
def test_exact_over_shapes(shape, dtype, op):
    problem = integers(shape, dtype, op=op, seed=1)
    check_exact(problem, fused(problem))


@each_dtype
@pytest.mark.parametrize("shape", [*FEW_SHAPES, *EMPTY_SHAPES], ids=size_id)
def test_exact_with_the_activation_computed_again(shape, dtype):
    problem = integers(shape, dtype, seed=2)
    check_exact(problem, fused(problem, saved=False))


@each_op
@pytest.mark.parametrize("bias", ["none", "first", "second"])
@pytest.mark.parametrize("shape", FEW_SHAPES, ids=size_id)
def test_exact_without_biases(shape, bias, op):
    problem = integers(shape, torch.float32, op=op, bias=bias, seed=3)
    check_exact(problem, fused(problem))


@each_op
@each_dtype
@pytest.mark.parametrize("layout", [name for name in ARRAY_LAYOUTS if "same" not in name])
@pytest.mark.parametrize("shape", [*FEW_SHAPES, *EMPTY_SHAPES], ids=size_id)
def test_exact_over_layouts(shape, layout, dtype, op):
    problem = integers(shape, dtype, op=op, seed=4)
    check_exact(problem, fused(problem, layout=layout))


@each_op
@pytest.mark.parametrize("layout", ["same_row", "same_column", "same_everywhere"])
def test_exact_over_broadcasts(layout, op):
    problem = integers(Shape(20, 1100, 70, 9), torch.float32, op=op, layout=layout, seed=5)
    assert problem.inputs["x"].numpy().strides.count(0) > 0
    check_exact(problem, fused(problem, layout=layout))


@each_op
@each_dtype
@pytest.mark.parametrize(
    "shape", [Shape(33, 70, 65, 10), Shape(64, 256, 256, 10), Shape(1, 64, 64, 4)], ids=size_id
)
def test_within_budget(shape, dtype, op):
    problems = [randoms(shape, dtype, op=op, seed=draw) for draw in range(draw_count(shape, dtype))]
    check_budget(problems, [fused(problem) for problem in problems])


@each_op
def test_each_subset_of_gradients_has_the_bits_of_the_full_run(op):
    problem = randoms(SHAPE, torch.float32, op=op, seed=6)
    full = fused(problem)
    names = list(problem.inputs)
    for needs in itertools.product([False, True], repeat=len(names)):
        some = fused(problem, needs=needs)
        for name, needed in zip(names, needs, strict=True):
            got = some[f"grad_{name}"]
            assert (got is not None) == needed
            assert not needed or torch.equal(got, full[f"grad_{name}"])


@pytest.mark.parametrize("leading", [(), (17,), (1, 17), (3, 2, 2), (0,), (3, 0)], ids=str)
def test_leading_dimensions(leading):
    problem = integers(SHAPE, torch.float32, seed=7)
    count = math.prod(leading)
    arrays = arrays_of(problem)
    x = arrays["x"][:count].reshape(*leading, 40)
    grad_y = arrays["grad"][:count].reshape(*leading, 10)
    y, a = tk.two_layer_forward(x, *[arrays[n] for n in ("w1", "w2", "b1", "b2")])
    grad_x = tk.two_layer_backward(grad_y, x, arrays["w1"], arrays["w2"], arrays["b1"], a)[0]
    wanted = plain(problem)
    assert y.shape == (*leading, 10)
    np.testing.assert_array_equal(y.reshape(count, 10), wanted["y"][:count].numpy())
    np.testing.assert_array_equal(grad_x.reshape(count, 40), wanted["grad_x"][:count].numpy())
    assert grad_x.shape == x.shape
    out = tk.linear_relu(x, arrays["w1"], arrays["b1"])
    assert out.shape == (*leading, 33)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@each_dtype
def test_nan_and_infinity_spread_as_in_torch(dtype, value):
    problem = integers(SHAPE, dtype, seed=8)
    problem.inputs["x"][2, 5] = value
    results, wanted = fused(problem), plain(problem)
    for name in results:
        np.testing.assert_array_equal(results[name].numpy(), wanted[name].numpy())


def test_thread_counts_are_exact():
    before = tk.get_num_threads()
    problem = integers(Shape(64, 300, 100, 10), torch.float32, seed=9)
    try:
        for threads in (1, 2, 3, 7):
            tk.set_num_threads(threads)
            assert tk.get_num_threads() == threads
            check_exact(problem, fused(problem))
    finally:
        tk.set_num_threads(before)


def test_inputs_are_left_alone():
    problem = integers(SHAPE, torch.float32, seed=10)
    before = {n: a.copy() for n, a in arrays_of(problem).items()}
    fused(problem)
    for name, array in arrays_of(problem).items():
        np.testing.assert_array_equal(array, before[name])


# Bad input.


def good():
    return {
        "x": np.ones((5, 4)),
        "w1": np.ones((3, 4)),
        "w2": np.ones((2, 3)),
        "b1": np.ones(3),
        "b2": np.ones(2),
    }


BAD = [
    ("x", [[1.0]], TypeError, ["x", "numpy.ndarray", "list"]),
    ("x", torch.ones(5, 4), TypeError, ["x", "numpy.ndarray", "Tensor"]),
    ("x", np.ones((5, 4), np.int64), TypeError, ["x", "float32", "float16", "int64"]),
    ("x", np.ones((5, 4), np.longdouble), TypeError, ["x", "float32", str(np.dtype("longdouble"))]),
    ("x", np.ones((5, 4), np.dtype("f8").newbyteorder()), TypeError, ["x", "float64", ">f8"]),
    ("x", np.ones((5, 4), object), TypeError, ["x", "float32", "object"]),
    ("x", np.array(1.0), ValueError, ["x", "(..., in_features)", "scalar"]),
    ("x", np.ones((5, 6)), ValueError, ["w1", "in_features = 6", "(3, 4)"]),
    ("w1", None, TypeError, ["w1", "numpy.ndarray", "NoneType"]),
    ("w1", np.ones((3, 4), np.float32), TypeError, ["w1", "float64", "float32"]),
    ("w1", np.ones((4, 3)), ValueError, ["w1", "in_features = 4", "(4, 3)"]),
    ("w1", np.ones(4), ValueError, ["w1", "(hidden_features, in_features)", "(4,)"]),
    ("w2", np.ones((3, 2)), ValueError, ["w2", "hidden_features = 3", "(3, 2)"]),
    ("w2", np.ones((2, 3), np.float16), TypeError, ["w2", "float64", "float16"]),
    ("b1", np.ones(2), ValueError, ["b1", "(3,)", "(2,)"]),
    ("b1", np.ones((3, 1)), ValueError, ["b1", "(3,)", "(3, 1)"]),
    ("b1", 1.0, TypeError, ["b1", "numpy.ndarray", "float"]),
    ("b2", np.ones(3), ValueError, ["b2", "(2,)", "(3,)"]),
    ("b2", np.ones(2, np.float32), TypeError, ["b2", "float64", "float32"]),
]
BAD_BACKWARD = [
    ("grad_y", None, TypeError, ["grad_y", "numpy.ndarray", "NoneType"]),
    ("grad_y", np.ones((5, 3)), ValueError, ["grad_y", "(5, 2)", "(5, 3)"]),
    ("grad_y", np.ones((4, 2)), ValueError, ["grad_y", "(5, 2)", "(4, 2)"]),
    ("grad_y", np.ones((5, 2), np.float32), TypeError, ["grad_y", "float64", "float32"]),
    ("a", np.ones((5, 4)), ValueError, ["a", "(5, 3)", "(5, 4)"]),
    ("a", np.ones((5, 3), np.float32), TypeError, ["a", "float64", "float32"]),
    ("a", "a", TypeError, ["a", "numpy.ndarray", "str"]),
    ("needs", (True, True), ValueError, ["needs", "5", "2"]),
    *[case for case in BAD if case[0] != "b2"],
]


def case_id(value):
    if isinstance(value, np.ndarray | torch.Tensor):
        return f"{value.dtype}{tuple(value.shape)}".replace(" ", "")
    return getattr(value, "__name__", None) or (str(value) if not isinstance(value, list) else "")


def raises(error, call, parts):
    with pytest.raises(error, match=".*".join(map(re.escape, parts))) as caught:
        call()
    assert type(caught.value) is error


@pytest.mark.parametrize(("argument", "value", "error", "parts"), BAD, ids=case_id)
def test_forward_refuses(argument, value, error, parts):
    inputs = good() | {argument: value}
    raises(error, lambda: tk.two_layer(**inputs), parts)
    raises(error, lambda: tk.two_layer_forward(**inputs), parts)


@pytest.mark.parametrize(("argument", "value", "error", "parts"), BAD_BACKWARD, ids=case_id)
def test_backward_refuses(argument, value, error, parts):
    inputs = {"grad_y": np.ones((5, 2)), "a": np.ones((5, 3))} | good() | {argument: value}
    inputs.pop("b2")
    raises(error, lambda: tk.two_layer_backward(**inputs), parts)


@pytest.mark.parametrize(
    ("argument", "value", "error", "parts"),
    [
        ("x", [1.0], TypeError, ["x", "numpy.ndarray", "list"]),
        ("w", np.ones((4, 3)), ValueError, ["w", "in_features = 4", "(4, 3)"]),
        ("grad_a", np.ones((5, 4)), ValueError, ["grad_a", "(5, 3)", "(5, 4)"]),
        ("a", np.ones((4, 3)), ValueError, ["a", "(5, 3)", "(4, 3)"]),
        ("a", None, TypeError, ["a", "numpy.ndarray", "NoneType"]),
        ("needs", (True,) * 5, ValueError, ["needs", "3", "5"]),
    ],
    ids=case_id,
)
def test_linear_relu_backward_refuses(argument, value, error, parts):
    inputs = {
        "grad_a": np.ones((5, 3)),
        "x": np.ones((5, 4)),
        "w": np.ones((3, 4)),
        "a": np.ones((5, 3)),
    } | {argument: value}
    raises(error, lambda: tk.linear_relu_backward(**inputs), parts)


@pytest.mark.parametrize(
    ("threads", "error"), [(0, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_set_num_threads_refuses(threads, error):
    before = tk.get_num_threads()
    raises(error, lambda: tk.set_num_threads(threads), ["threads"])
    assert tk.get_num_threads() == before
