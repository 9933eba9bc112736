"""Which backend runs a call, and what ``explain`` says of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from twolayer_kernels import FusedLinearReLU, FusedTwoLayer, _cpu, explain, operations
from twolayer_kernels.backends import cpu, reference
from twolayer_kernels.backends import torch as torch_backend
from twolayer_kernels.functional import linear_relu, two_layer

from .problems import BACKENDS, DTYPES, dtype_id

MODULES = {"cpu": cpu, "torch": torch_backend, "reference": reference}
X = torch.ones(5, 4)


@pytest.fixture
def calls(monkeypatch):
    """The names of the backends whose forward runs, in order."""
    seen = []
    for name, module in MODULES.items():
        for function in ("two_layer_forward", "linear_relu_forward"):
            original = getattr(module, function)

            def watched(*args, name=name, original=original):
                seen.append(name)
                return original(*args)

            monkeypatch.setattr(module, function, watched)
    # What torch's kernels run, plain operations run, and autograd's own backward.
    for function in ("two_layer", "linear_relu"):
        original = getattr(operations, function)
        monkeypatch.setattr(
            operations, function, lambda *args, f=original: seen.append("torch") or f(*args)
        )
    return seen


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_cpu_tensors_run_on_the_cpu_kernels_by_default(calls, dtype):
    FusedTwoLayer(4, 3, 2, dtype=dtype)(X.to(dtype))
    FusedLinearReLU(4, 3, dtype=dtype)(X.to(dtype))
    assert calls == ["cpu", "cpu"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_named_backend_runs(calls, backend):
    FusedTwoLayer(4, 3, 2, backend=backend)(X)
    FusedLinearReLU(4, 3, backend=backend)(X)
    assert set(calls) == {backend}


def test_a_named_backend_is_never_replaced(monkeypatch, calls):
    monkeypatch.setattr(cpu, "unsupported", lambda *_: "it is out of order")
    from twolayer_kernels import dispatch

    dispatch.choose.cache_clear()
    try:
        with pytest.raises(NotImplementedError, match=r"backend='cpu'.*it is out of order"):
            FusedTwoLayer(4, 3, 2, backend="cpu")(X)
        assert calls == []
        assert explain(two_layer, X) == "two_layer: torch (it is out of order)"
    finally:
        dispatch.choose.cache_clear()


def test_meta_tensors_run_on_torch(calls):
    y = FusedTwoLayer(4, 3, 2, device="meta")(X.to("meta"))
    assert y.is_meta
    assert y.shape == (5, 2)
    assert set(calls) == {"torch"}


@pytest.mark.parametrize("op", [two_layer, linear_relu])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_explain_a_function(op, dtype):
    line = explain(op, X.to(dtype))
    isa = _cpu.instruction_set()
    assert line.startswith(f"{op.__name__}: cpu[{isa}] (")
    assert dtype_id(dtype) in line


def test_explain_a_model_has_a_line_for_each_fused_layer():
    model = nn.ModuleDict(
        {
            "first": FusedLinearReLU(4, 4, backend="torch"),
            "plain": nn.Linear(4, 4),
            "rest": nn.Sequential(FusedTwoLayer(4, 3, 2), nn.ReLU()),
        }
    )
    lines = explain(model, X).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["first", "rest.0"]
    assert lines[0] == "first: torch (named by the caller)"
    assert "cpu[" in lines[1]


def test_explain_a_layer_by_itself():
    assert explain(FusedTwoLayer(4, 3, 2, backend="reference"), X) == (
        "FusedTwoLayer: reference (named by the caller)"
    )


def test_explain_a_device_without_kernels():
    line = explain(two_layer, X.to("meta"))
    assert line.startswith("two_layer: torch (")
    assert "meta" in line


def test_explain_a_model_without_fused_layers():
    assert "no fused layer" in explain(nn.Linear(4, 3), X)
