"""Which way a call takes: the quick answer and the slow one agree, and ``explain`` says it."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from twolayer_kernels import FusedTwoLayer, TwoLayerNet, explain, transparency
from twolayer_kernels.transparency import Way

from .test_transparency import X, adapt, own_forward, sequential


def test_a_named_backend_refuses():
    model = FusedTwoLayer(6, 9, 4, backend="cpu")
    model.linear1.register_forward_hook(lambda m, inputs, output: None)
    with pytest.raises(NotImplementedError, match=r"backend='cpu'.*linear1 has hooks"):
        model(X)
    torchs = FusedTwoLayer(6, 9, 4, backend="torch")
    torchs.linear1.register_forward_hook(lambda m, inputs, output: 0 * output)
    torch.testing.assert_close(torchs(X), torchs.linear2.bias.expand(7, 4))


def observed(model):
    model.linear2.register_forward_hook(lambda m, inputs, output: None)


SAID = {
    "hooks": (observed, "linear2 has hooks"),
    "replaced": (lambda m: adapt(m, "linear1"), "linear1 is a Adapted"),
    "own_forward": (lambda m: own_forward(m, "linear1"), "linear1 has a forward of its own"),
}


@pytest.mark.parametrize(("change", "reason"), SAID.values(), ids=SAID)
def test_explain_says_why_the_layers_are_called(change, reason):
    model = FusedTwoLayer(6, 9, 4)
    assert "one after the other" not in explain(model, X)
    change(model)
    assert explain(model, X) == f"FusedTwoLayer: its layers one after the other ({reason})"


def test_explain_says_why_a_fused_chain_falls_apart():
    model = sequential(TwoLayerNet(6, 9, 4))
    adapt(model, "linear2")
    assert "one of the layers is replaced" in explain(model, X)


@pytest.mark.parametrize("change", ["none", "hook", "replace", "own_forward", "parametrize"])
def test_the_quick_answer_is_the_slow_one(change):
    """For layers that are exactly linear; a parametrized one is left to the slow answer."""
    model = FusedTwoLayer(6, 9, 4)
    layers = {"linear1": model.linear1, "linear2": model.linear2}
    {
        "none": lambda: None,
        "hook": lambda: observed(model),
        "replace": lambda: layers.update(linear1=nn.Identity()),
        "own_forward": lambda: own_forward(model, "linear2"),
        "parametrize": lambda: parametrizations.weight_norm(model.linear1),
    }[change]()
    quick = transparency.plain_parameters(*layers.values())
    assert (quick is not None) == (change == "none")
    assert (transparency.why_called(layers) is None) == (change in ("none", "parametrize"))
    if quick is not None:
        w1, w2, b1, b2 = quick
        assert w1 is model.linear1.weight
        assert w2 is model.linear2.weight
        assert b1 is model.linear1.bias
        assert b2 is model.linear2.bias


class Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Function(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


AROUND = {
    "dispatch_mode": (Dispatch, Way.OPERATORS),
    "function_mode": (Function, Way.OPERATIONS),
    "default_device": (lambda: torch.device("meta"), Way.DIRECT),
    "profiler": (torch.profiler.profile, Way.OPERATORS),
    "forward_mode": (forward_ad.dual_level, Way.OPERATIONS),
}


@pytest.mark.parametrize(("around", "way"), AROUND.values(), ids=AROUND)
def test_what_goes_on_around_a_call_is_not_missed(around, way):
    assert transparency.unseen(X, None)
    assert transparency.way_of_call(X, None)[0] is Way.DIRECT
    with around():
        assert not transparency.unseen(X, None)
        assert transparency.way_of_call(X, None)[0] is way
    assert transparency.unseen(X, None)


def test_a_tracer_or_transform_is_not_missed():
    seen = []

    def look(x):
        seen.append((transparency.unseen(x), transparency.way_of_call(x)[0]))
        return x * 2

    torch.func.vmap(look)(X)
    torch.func.grad(lambda x: look(x).sum())(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(look, X, check_trace=False)
    assert set(seen) == {(False, Way.OPERATIONS)}


@pytest.mark.parametrize(
    "kind", ["subclass", "subclass_of_parameter", "fake", "proxy", "no_tensor"]
)
def test_the_kind_of_an_argument_is_not_missed(kind):
    class Sub(torch.Tensor):
        pass

    class Own(nn.Parameter):
        pass

    argument, way = {
        "subclass": (X.as_subclass(Sub), Way.OPERATIONS),
        "subclass_of_parameter": (Own(X), Way.DIRECT),
        "fake": (FakeTensorMode().from_tensor(X), Way.OPERATORS),
        "proxy": (torch.fx.Proxy(torch.fx.Graph().placeholder("x")), Way.OVERRIDE),
        "no_tensor": (X.numpy(), Way.DIRECT),
    }[kind]
    for position in range(3):
        given = [X, nn.Parameter(X), None]
        given[position] = argument
        assert not transparency.unseen(*given)
        assert transparency.way_of_call(*given)[0] is way
