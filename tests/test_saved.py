"""What a forward keeps for backward: what the plain network keeps, no more and no less."""

from __future__ import annotations

import gc
import itertools
import weakref
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from twolayer_kernels import FusedLinearReLU, FusedTwoLayer, TwoLayerNet
from twolayer_kernels.functional import linear_relu

NAMES = ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")


class PlainLinearReLU(nn.Linear):
    def forward(self, input):
        return torch.relu(super().forward(input))


def pair_of_networks(recompute=False):
    torch.manual_seed(0)
    plain = TwoLayerNet(5, 7, 3, dtype=torch.float64)
    ours = FusedTwoLayer(5, 7, 3, dtype=torch.float64, recompute=recompute)
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def pair_of_layers():
    torch.manual_seed(0)
    plain, ours = PlainLinearReLU(5, 7).double(), FusedLinearReLU(5, 7).double()
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def outcome(function, *arguments):
    """What comes out: tensors, or that a change in place was refused."""
    try:
        return function(*arguments)
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        return "refused"


def assert_alike(ours, plain):
    if isinstance(plain, str) or isinstance(ours, str):
        assert ours == plain
        return
    for actual, expected in zip(ours, plain, strict=True):
        assert (actual is None) == (expected is None)
        if actual is not None:
            torch.testing.assert_close(actual, expected)


CHANGES = {
    "sub_": lambda a: a.sub_(1),
    "add_": lambda a: a.add_(torch.linspace(-1, 1, a.numel()).reshape(a.shape)),
    "zero_": lambda a: a.zero_(),
    "in no_grad": lambda a: torch.no_grad()(a.mul_)(-1),
    "nothing": lambda a: a,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5), (0, 3, 5)], ids=str)
def test_an_activation_that_is_changed_in_place(shape, change):
    """The mask was taken from the changed one, without a word."""

    def gradients(layer, x):
        a = layer(x)
        change(a)
        a.square().sum().backward()
        return [p.grad for p in layer.parameters()]

    x = torch.randn(shape, dtype=torch.float64)
    plain, ours = pair_of_layers()
    assert_alike(outcome(gradients, ours, x), outcome(gradients, plain, x))
    assert ours(x)._is_view() == plain(x)._is_view()


def parts():
    """Which of x and the parameters want gradients: each combination but none."""
    return [c for c in itertools.product((True, False), repeat=5) if any(c)]


WAYS = {"direct": nullcontext, "profiler": torch.profiler.profile}


def leaf_and_network(model, wanted):
    """Of ``wanted``, the first says whether x wants a gradient, the others which parameters do."""
    named = dict(model.named_parameters())
    torch.manual_seed(1)
    source = torch.randn(4, 5, dtype=torch.float64, requires_grad=wanted[0])
    for name, needed in zip(NAMES, wanted[1:], strict=True):
        named[name].requires_grad_(needed)
    return source, named


def gradients_after_a_change(model, wanted, changed, looking=nullcontext, compiled=False):
    """Of x and the parameters that are wanted, one of which is changed after the forward."""
    source, named = leaf_and_network(model, wanted)
    x = source * 1
    with looking():
        y = (torch.compile(model, backend="aot_eager") if compiled else model)(x)
        with torch.no_grad():
            (x if changed == "x" else named[changed]).add_(1)
        y.square().sum().backward()
    return [source.grad, *(p.grad for p in named.values())]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("looking", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("recompute", [False, True], ids=["keep", "recompute"])
@pytest.mark.parametrize("changed", ["x", *NAMES])
def test_what_no_gradient_uses_may_change(changed, recompute, looking):
    """Refused where the plain network refuses; with ``recompute`` x, w1 and b1 are used again."""
    for wanted in parts():
        plain, ours = pair_of_networks(recompute)
        expected = outcome(gradients_after_a_change, plain, wanted, changed, looking)
        actual = outcome(gradients_after_a_change, ours, wanted, changed, looking)
        if recompute and changed in ("x", "linear1.weight", "linear1.bias") and any(wanted[:4]):
            assert actual == "refused"
        else:
            assert_alike(actual, expected)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("changed", ["x", *NAMES])
@pytest.mark.parametrize(
    "wanted", [(True, False, True, True, True), (False, True, True, True, True)]
)
def test_what_no_gradient_uses_may_change_when_compiled(changed, wanted):
    torch._dynamo.reset()
    plain, ours = [
        outcome(partial(gradients_after_a_change, compiled=True), model, wanted, changed)
        for model in pair_of_networks()
    ]
    assert_alike(ours, plain)


def _empty(p):
    p.data = torch.empty(0, dtype=p.dtype)


def _larger(p):
    p.data = torch.ones(9, 11, dtype=p.dtype)


def _half(p):
    p.data = p.data.half()


def _freed(p):
    p.untyped_storage().resize_(0)


@pytest.mark.parametrize("looking", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("change", [_empty, _larger, _half, _freed])
@pytest.mark.parametrize("one_layer", [False, True], ids=["two_layer", "linear_relu"])
def test_a_weight_that_no_gradient_uses_may_lose_its_memory(one_layer, change, order, looking):
    results = []
    for model in pair_of_layers() if one_layer else pair_of_networks():
        frozen = model.weight if one_layer else model.linear1.weight
        frozen.requires_grad_(False)
        wanted = [p for p in model.parameters() if p.requires_grad]
        with looking():
            y = model(torch.linspace(-1, 1, 20).double().reshape(4, 5))
            change(frozen)
            loss = y.square().sum()
            gradients = torch.autograd.grad(loss, wanted, create_graph=order == 2)
            if order == 2:
                loss = sum(g.square().sum() for g in gradients)
                gradients = torch.autograd.grad(loss, wanted)
        results.append(gradients)
    assert_alike(*results[::-1])


def test_a_first_weight_freed_in_ordinary_training():
    results = []
    for model in pair_of_networks():
        y = model(torch.linspace(-1, 1, 20).double().reshape(4, 5))
        model.linear1.weight.untyped_storage().resize_(0)
        results.append(torch.autograd.grad(y.square().sum(), list(model.parameters())))
    assert_alike(*results[::-1])


def test_an_input_that_no_gradient_uses_is_not_kept():
    for model in pair_of_networks():
        model.linear1.weight.requires_grad_(False)
        x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True) * 1
        kept = weakref.ref(x)
        y = model(x)
        del x
        gc.collect()
        assert kept() is None
        y.sum().backward()


def test_an_input_of_inference_mode_before_a_frozen_layer():
    with torch.inference_mode():
        x = torch.randn(4, 5, dtype=torch.float64)
    gradients = []
    for model in pair_of_networks():
        model.linear1.weight.requires_grad_(False)
        model(x).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert_alike(*gradients[::-1])


def test_backward_twice_where_nothing_was_saved():
    for model in pair_of_networks():
        model.requires_grad_(False)
        model.linear2.bias.requires_grad_()
        y = model(torch.randn(4, 5, dtype=torch.float64)).sum()
        y.backward()
        y.backward()
        torch.testing.assert_close(model.linear2.bias.grad, torch.full((3,), 8.0).double())


@pytest.mark.parametrize("batched", [False, True], ids=["once", "batched"])
@pytest.mark.parametrize("recompute", [False, True], ids=["keep", "recompute"])
@pytest.mark.parametrize("looking", WAYS.values(), ids=WAYS)
def test_second_derivatives_reach_everything(looking, recompute, batched):
    """Also an input whose values were not kept, as it is changed since."""
    for wanted in parts():

        def second(model, wanted=wanted):
            source, named = leaf_and_network(model, wanted)
            x = source * 1
            leaves = [t for t in (source, *named.values()) if t.requires_grad]
            with looking():
                y = model(x)
                if not (wanted[1] or recompute):
                    with torch.no_grad():
                        x.add_(1)
                out = torch.randn(2, *y.shape, dtype=torch.float64, requires_grad=True)
                first = torch.autograd.grad(
                    y.square() if not batched else y,
                    leaves,
                    out if batched else out[0],
                    create_graph=True,
                    is_grads_batched=batched,
                )
                loss = sum(g.square().sum() for g in first)
                return torch.autograd.grad(loss, [out, *leaves], allow_unused=True)

        plain, ours = pair_of_networks(recompute)
        for pair in zip(second(ours), second(plain), strict=True):
            there = [g for g in pair if g is not None]  # zeros may come as None
            if there:
                torch.testing.assert_close(
                    *(torch.zeros_like(there[0]) if g is None else g for g in pair)
                )


def second_derivative(model, x, w):
    y = torch.func.functional_call(model, {"linear1.weight": w}, (x,))
    (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    return torch.autograd.grad(g.square().sum(), w)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_second_derivatives_are_traced(mode):
    results = []
    x, w = torch.randn(4, 5).double().requires_grad_(), torch.randn(7, 5).double().requires_grad_()
    for model in pair_of_networks():
        traced = make_fx(
            partial(second_derivative, model), tracing_mode=mode, _allow_non_fake_inputs=True
        )(x, w)
        results.append(traced(x, w))
    assert_alike(*results[::-1])


@pytest.mark.parametrize("grad", [True, False])
def test_a_trace_before_autograd_records_what_is_computed(grad):
    """It recorded memory that nobody had written."""
    x = torch.randn(4, 5).double()
    with torch.set_grad_enabled(grad):
        for function in (pair_of_networks()[1], lambda x: linear_relu(x, torch.eye(5).double())):
            graph = make_fx(function, pre_dispatch=True)(x)
            other = torch.randn(4, 5).double()
            torch.testing.assert_close(graph(other), function(other))
