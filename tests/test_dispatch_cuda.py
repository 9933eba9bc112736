"""What a call on a CUDA device would run, and what is said where it cannot; no GPU is needed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from twolayer_kernels import FusedTwoLayer, dispatch, explain
from twolayer_kernels.functional import linear_relu, two_layer

X = torch.ones(5, 4)


@pytest.fixture
def fresh():
    """Nothing remembered of which backends load."""
    cached = (dispatch._load, dispatch.choose, dispatch._triton_for)

    def forget():
        for function in cached:
            function.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def without_triton(monkeypatch, fresh):
    for name in [m for m in sys.modules if m.startswith("twolayer_kernels.backends.triton")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)


CALLS = {
    "two_layer": lambda x: two_layer(x, torch.ones(3, 4), torch.ones(2, 3), backend="triton"),
    "linear_relu": lambda x: linear_relu(x, torch.ones(3, 4), backend="triton"),
    "module": lambda x: FusedTwoLayer(4, 3, 2, backend="triton")(x),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_cpu_tensor_is_refused_by_name(call):
    with pytest.raises(
        NotImplementedError, match=r"backend='triton'.*need tensors on a cuda device, got cpu"
    ):
        call(X)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_missing_triton_is_named(without_triton, call):
    with pytest.raises(NotImplementedError, match=r"backend='triton' is not available.*triton"):
        call(X)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.complex64], ids=str)
def test_an_unsupported_dtype_is_named(fresh, dtype):
    with pytest.raises(NotImplementedError, match=rf"backend='triton'.*no {dtype}"):
        dispatch.choose("cuda", dtype, "triton")


def test_mixed_devices_are_named():
    with pytest.raises(ValueError, match=r"w1.*cpu.*meta"):
        two_layer(X, torch.ones(3, 4, device="meta"), torch.ones(2, 3))


def test_without_triton_cuda_tensors_run_on_torch(without_triton):
    choice = dispatch.choose_for_cuda(X, 4, 3, 2)
    assert choice.backend.__name__.endswith("backends.torch")
    assert "triton" in choice.reason


def test_a_dtype_without_kernels_runs_on_torch(fresh):
    choice = dispatch.choose_for_cuda(X.double(), 4, 3, 2)
    assert choice.backend.__name__.endswith("backends.torch")
    assert "torch.float64" in choice.reason


@pytest.mark.parametrize("faster", [True, False])
def test_measurements_decide_and_explain_says_them(monkeypatch, faster):
    asked = []

    def verdict(*question):
        asked.append(question[1:])
        return faster, "as measured"

    backend = SimpleNamespace(__name__="backends.triton", verdict=verdict)
    monkeypatch.setattr(dispatch, "_triton_for", lambda dtype: (backend, ""))
    choice = dispatch.choose_for_cuda(torch.ones(2, 5, 4), 4, 3, 2)
    assert choice.backend.__name__.endswith("triton" if faster else "torch")
    assert choice.reason == "as measured"
    assert asked == [(10, 4, 3, 2)]


def test_explain_asks_by_size_for_tensors_on_a_gpu(monkeypatch):
    class OnGpu(torch.Tensor):
        device = torch.device("cuda")
        __torch_function__ = torch._C._disabled_torch_function_impl  # no kind of its own

    answer = dispatch.Choice(SimpleNamespace(__name__="backends.triton"), "as measured")
    monkeypatch.setattr(dispatch, "choose_for_cuda", lambda x, *sizes: answer)
    x = torch.ones(5, 4).as_subclass(OnGpu)
    model = nn.Sequential(FusedTwoLayer(4, 3, 2), FusedTwoLayer(2, 3, 2, backend="torch"))
    assert explain(model, x).splitlines() == [
        "0: triton (as measured)",
        "1: torch (named by the caller)",
    ]
