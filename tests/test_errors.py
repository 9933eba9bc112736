"""Bad input: the kind of error, and a message with the argument, what was needed and what came."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from twolayer_kernels import FusedLinearReLU, FusedTwoLayer, explain
from twolayer_kernels.functional import linear_relu, two_layer


def good_two_layer():
    return {
        "x": torch.ones(5, 4),
        "w1": torch.ones(3, 4),
        "w2": torch.ones(2, 3),
        "b1": torch.ones(3),
        "b2": torch.ones(2),
    }


def good_linear_relu():
    return {"x": torch.ones(5, 4), "w": torch.ones(3, 4), "b": torch.ones(3)}


def raises(error, call, *parts):
    """``call`` raises exactly ``error``, whose message holds the parts in this order."""
    with pytest.raises(error, match=".*".join(map(re.escape, parts))) as caught:
        call()
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


# Each case: the argument, what is passed, the error, and what the message must hold.
TENSORS = [
    ("x", [[1.0]], TypeError, ["x", "torch.Tensor", "list"]),
    ("x", None, TypeError, ["x", "torch.Tensor", "NoneType"]),
    ("x", torch.ones(5, 4, dtype=torch.int64), TypeError, ["x", "float32", "float16", "int64"]),
    ("x", torch.ones(5, 4, dtype=torch.bool), TypeError, ["x", "float32", "bool"]),
    ("x", torch.ones(5, 4, dtype=torch.complex64), TypeError, ["x", "float32", "complex64"]),
    ("x", torch.tensor(1.0), ValueError, ["x", "(..., in_features)", "scalar"]),
]
TWO_LAYER = [
    *TENSORS,
    ("x", torch.ones(5, 6), ValueError, ["w1", "in_features = 6", "(3, 4)"]),
    ("x", torch.ones(5, 4).to_sparse(), TypeError, ["x", "strided", "sparse"]),
    ("w1", None, TypeError, ["w1", "torch.Tensor", "NoneType"]),
    ("w1", "weights", TypeError, ["w1", "torch.Tensor", "str"]),
    ("w1", torch.ones(3, 4).double(), TypeError, ["w1", "float32", "float64"]),
    ("w1", torch.ones(4, 3), ValueError, ["w1", "in_features = 4", "(4, 3)"]),
    ("w1", torch.ones(3), ValueError, ["w1", "(hidden_features, in_features)", "(3,)"]),
    ("w1", torch.ones(1, 3, 4), ValueError, ["w1", "(hidden_features, in_features)", "(1, 3, 4)"]),
    ("w1", torch.ones(3, 4, device="meta"), ValueError, ["w1", "cpu", "meta"]),
    ("w2", 3.0, TypeError, ["w2", "torch.Tensor", "float"]),
    ("w2", torch.ones(2, 3).half(), TypeError, ["w2", "float32", "float16"]),
    ("w2", torch.ones(3, 2), ValueError, ["w2", "hidden_features = 3", "(3, 2)"]),
    ("w2", torch.ones(2, 3, device="meta"), ValueError, ["w2", "cpu", "meta"]),
    ("b1", True, TypeError, ["b1", "torch.Tensor", "bool"]),
    ("b1", torch.ones(3).bfloat16(), TypeError, ["b1", "float32", "bfloat16"]),
    ("b1", torch.ones(2), ValueError, ["b1", "(3,)", "(2,)"]),
    ("b1", torch.ones(1), ValueError, ["b1", "(3,)", "(1,)"]),
    ("b1", torch.ones(3, 1), ValueError, ["b1", "(3,)", "(3, 1)"]),
    ("b1", torch.ones(3, device="meta"), ValueError, ["b1", "cpu", "meta"]),
    ("b2", [1.0, 2.0], TypeError, ["b2", "torch.Tensor", "list"]),
    ("b2", torch.ones(2).double(), TypeError, ["b2", "float32", "float64"]),
    ("b2", torch.ones(3), ValueError, ["b2", "(2,)", "(3,)"]),
    ("b2", torch.tensor(1.0), ValueError, ["b2", "(2,)", "()"]),
    ("b2", torch.ones(2, device="meta"), ValueError, ["b2", "cpu", "meta"]),
    ("backend", "cuda", ValueError, ["backend", "cpu, triton, torch, reference", "'cuda'"]),
    ("backend", "CPU", ValueError, ["backend", "cpu, triton, torch, reference", "'CPU'"]),
    ("backend", 3, TypeError, ["backend", "str", "int"]),
    ("backend", ["cpu"], TypeError, ["backend", "str", "list"]),
    ("backend", "triton", NotImplementedError, ["triton"]),
    ("recompute", "yes", TypeError, ["recompute", "bool", "str"]),
]
LINEAR_RELU = [
    *TENSORS,
    ("w", None, TypeError, ["w", "torch.Tensor", "NoneType"]),
    ("w", torch.ones(3, 4).double(), TypeError, ["w", "float32", "float64"]),
    ("w", torch.ones(4, 3), ValueError, ["w", "in_features = 4", "(4, 3)"]),
    ("w", torch.ones(4), ValueError, ["w", "(out_features, in_features)", "(4,)"]),
    ("w", torch.ones(3, 4, device="meta"), ValueError, ["w", "cpu", "meta"]),
    ("b", 0, TypeError, ["b", "torch.Tensor", "int"]),
    ("b", torch.ones(3).half(), TypeError, ["b", "float32", "float16"]),
    ("b", torch.ones(4), ValueError, ["b", "(3,)", "(4,)"]),
    ("b", torch.ones(3, device="meta"), ValueError, ["b", "cpu", "meta"]),
    ("backend", "gpu", ValueError, ["backend", "cpu, triton, torch, reference", "'gpu'"]),
    ("backend", "triton", NotImplementedError, ["triton"]),
]


def case_id(value):
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype)[6:]}{tuple(value.shape)}{value.device}".replace(" ", "")
    return getattr(value, "__name__", None) or (str(value) if not isinstance(value, list) else "")


@pytest.mark.parametrize(("argument", "value", "error", "parts"), TWO_LAYER, ids=case_id)
def test_two_layer_refuses(argument, value, error, parts):
    raises(error, lambda: two_layer(**(good_two_layer() | {argument: value})), *parts)


@pytest.mark.parametrize(("argument", "value", "error", "parts"), LINEAR_RELU, ids=case_id)
def test_linear_relu_refuses(argument, value, error, parts):
    raises(error, lambda: linear_relu(**(good_linear_relu() | {argument: value})), *parts)


def test_errors_name_the_function():
    raises(
        ValueError,
        lambda: two_layer(torch.ones(5, 6), torch.ones(3, 4), torch.ones(2, 3)),
        "two_layer",
    )
    raises(ValueError, lambda: linear_relu(torch.ones(5, 6), torch.ones(3, 4)), "linear_relu")


def test_the_cpu_backend_refuses_other_devices():
    inputs = {name: t.to("meta") for name, t in good_two_layer().items()}
    raises(NotImplementedError, lambda: two_layer(**inputs, backend="cpu"), "cpu", "meta")
    inputs = {name: t.to("meta") for name, t in good_linear_relu().items()}
    raises(NotImplementedError, lambda: linear_relu(**inputs, backend="cpu"), "cpu", "meta")


def test_bad_input_writes_nothing():
    good = good_two_layer()
    before = {name: t.clone() for name, t in good.items()}
    leaves = {name: t.requires_grad_() for name, t in good.items()}
    for argument, value, error, _ in TWO_LAYER:
        with pytest.raises(error):
            two_layer(**(leaves | {argument: value}))
    for name, leaf in leaves.items():
        assert torch.equal(leaf.detach(), before[name])
        assert leaf.grad is None
        assert leaf._version == 0


# The modules.

SIZES = [
    ("in_features", 4.0, TypeError, ["in_features", "int", "float"]),
    ("in_features", -1, ValueError, ["in_features", ">= 0", "-1"]),
    ("out_features", "2", TypeError, ["out_features", "int", "str"]),
    ("out_features", True, TypeError, ["out_features", "int", "bool"]),
    ("out_features", -2, ValueError, ["out_features", ">= 0", "-2"]),
    ("backend", "best", ValueError, ["backend", "cpu, triton, torch, reference", "'best'"]),
    ("backend", 1, TypeError, ["backend", "str", "int"]),
]
HIDDEN = [
    ("hidden_features", None, TypeError, ["hidden_features", "int", "NoneType"]),
    ("hidden_features", -3, ValueError, ["hidden_features", ">= 0", "-3"]),
    ("recompute", 1, TypeError, ["recompute", "bool", "int"]),
]


@pytest.mark.parametrize(("argument", "value", "error", "parts"), SIZES + HIDDEN, ids=case_id)
def test_fused_two_layer_refuses(argument, value, error, parts):
    good = {"in_features": 4, "hidden_features": 3, "out_features": 2}
    raises(error, lambda: FusedTwoLayer(**(good | {argument: value})), *parts)


@pytest.mark.parametrize(("argument", "value", "error", "parts"), SIZES, ids=case_id)
def test_fused_linear_relu_refuses(argument, value, error, parts):
    good = {"in_features": 4, "out_features": 2}
    raises(error, lambda: FusedLinearReLU(**(good | {argument: value})), *parts)


@pytest.mark.parametrize(
    ("linears", "error", "parts"),
    [
        ((nn.ReLU(), nn.Linear(3, 2)), TypeError, ["linear1", "torch.nn.Linear", "ReLU"]),
        ((nn.Linear(4, 3), None), TypeError, ["linear2", "torch.nn.Linear", "NoneType"]),
        ((nn.Linear(4, 3), nn.Linear(2, 3)), ValueError, ["linear2", "3", "2"]),
        (
            (nn.Linear(4, 3), nn.Linear(3, 2).double()),
            TypeError,
            ["linear2", "float32", "float64"],
        ),
        (
            (nn.Linear(4, 3), nn.Linear(3, 2, device="meta")),
            ValueError,
            ["linear2", "cpu", "meta"],
        ),
    ],
    ids=["linear1", "linear2", "sizes", "dtype", "device"],
)
def test_from_linears_refuses(linears, error, parts):
    raises(error, lambda: FusedTwoLayer.from_linears(*linears), *parts)


def test_from_linears_refuses_options():
    linears = nn.Linear(4, 3), nn.Linear(3, 2)
    raises(ValueError, lambda: FusedTwoLayer.from_linears(*linears, backend="x"), "backend", "'x'")


def test_a_module_refuses_inputs_as_its_function_does():
    module = FusedTwoLayer(4, 3, 2)
    raises(ValueError, lambda: module(torch.ones(5, 6)), "in_features = 6", "(3, 4)")
    raises(TypeError, lambda: module(torch.ones(5, 4).double()), "w1", "float64", "float32")


# explain.


def test_explain_refuses():
    module = FusedTwoLayer(4, 3, 2)
    raises(TypeError, lambda: explain(module, [1.0]), "x", "torch.Tensor", "list")
    raises(TypeError, lambda: explain("model", torch.ones(5, 4)), "model_or_op", "Module", "str")
    raises(TypeError, lambda: explain(torch.relu, torch.ones(5, 4)), "model_or_op", "builtin")
