"""The layers between: what is called, hooked, replaced or patched runs as in the plain network."""

from __future__ import annotations

import copy
import types

import pytest
import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from twolayer_kernels import FusedTwoLayer, TwoLayerNet, fuse, unfuse
from twolayer_kernels.layers import TwoLayerForward

X = torch.linspace(-2, 2, 7 * 6).reshape(7, 6).sin()
LAYERS = ("linear1", "linear2")


def sequential(plain):
    """The plain network's layers, as neighbours that ``fuse`` has fused; names as in the others."""

    class Chain(nn.Sequential):
        forward = nn.Sequential.forward

    model = Chain()
    for name, module in (
        ("linear1", plain.linear1),
        ("activation", nn.ReLU()),
        ("linear2", plain.linear2),
    ):
        model.add_module(name, module)
    (site,) = fuse(model)
    assert site.fused
    return model


def stateless(plain):
    plain.forward = types.MethodType(TwoLayerForward.forward, plain)
    return plain


FUSED = {
    "FusedTwoLayer": lambda plain: FusedTwoLayer.from_linears(plain.linear1, plain.linear2),
    "fuse": sequential,
    "TwoLayerForward": stateless,
}


@pytest.fixture(params=FUSED.values(), ids=FUSED)
def pair(request):
    """A fused network of each kind, and the plain one with the same parameters."""
    torch.manual_seed(0)
    plain = TwoLayerNet(6, 9, 4)
    return request.param(copy.deepcopy(plain)), plain


def results(model, x=X):
    """The output, the input's gradient and every parameter's."""
    x = x.clone().requires_grad_()
    y = model(x)
    model.zero_grad()
    y.square().sum().backward()
    found = {"y": y.detach(), "grad_x": x.grad}
    return found | {name: p.grad for name, p in model.named_parameters()}


def assert_same(fused, plain, x=X):
    ours, theirs = results(fused, x), results(plain, x)
    assert list(ours) == list(theirs)
    for name, expected in theirs.items():
        assert (ours[name] is None) == (expected is None), name
        if expected is not None:
            torch.testing.assert_close(ours[name], expected, msg=lambda m, n=name: f"{n}: {m}")


# ---- hooks ----


def count_forward(layer, seen):
    layer.register_forward_hook(lambda m, inputs, output: seen.append(output.detach().clone()))


def change_result(layer, seen):
    layer.register_forward_hook(lambda m, inputs, output: 3 * output)


def change_result_with_kwargs(layer, seen):
    layer.register_forward_hook(lambda m, args, kwargs, y: y + len(kwargs) + 1, with_kwargs=True)


def change_input(layer, seen):
    layer.register_forward_pre_hook(lambda m, inputs: (inputs[0] - 1,))


def change_input_with_kwargs(layer, seen):
    layer.register_forward_pre_hook(lambda m, a, k: ((a[0] * 2,), k), with_kwargs=True)


def always(layer, seen):
    layer.register_forward_hook(lambda m, inputs, output: 2 * output, always_call=True)


def see_gradients(layer, seen):
    layer.register_full_backward_hook(lambda m, gx, gy: seen.extend([gx[0].clone(), gy[0].clone()]))


def change_gradient(layer, seen):
    layer.register_full_backward_hook(lambda m, gx, gy: (gx[0] * 5,))


def change_incoming_gradient(layer, seen):
    layer.register_full_backward_pre_hook(lambda m, gy: (gy[0] * 5,))


HOOKS = [
    count_forward,
    change_result,
    change_result_with_kwargs,
    change_input,
    change_input_with_kwargs,
    always,
    see_gradients,
    change_gradient,
    change_incoming_gradient,
]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_hooks_on_a_layer(pair, layer, hook):
    seen = [], []
    for model, list_ in zip(pair, seen, strict=True):
        hook(model.get_submodule(layer), list_)
    assert_same(*pair)
    assert len(seen[0]) == len(seen[1])
    for ours, theirs in zip(*seen, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_removed_hook_is_gone(pair):
    fused, _ = pair
    before = results(fused)
    handle = fused.linear1.register_forward_hook(lambda m, inputs, output: 0 * output)
    assert not results(fused)["grad_x"].any()
    handle.remove()
    after = results(fused)
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)


def test_hooks_forgotten_by_a_new_dictionary(pair):
    """As libraries do that clear hooks they have no handle of."""
    for model in pair:
        model.linear1.register_forward_hook(lambda m, inputs, output: 0 * output)
        model.linear1._forward_hooks = type(model.linear1._forward_hooks)()
        model.linear2._forward_hooks[1] = lambda m, inputs, output: 2 * output
    assert_same(*pair)


GLOBAL_HOOKS = {
    "forward": lambda seen: module_hooks.register_module_forward_hook(
        lambda m, inputs, y: seen.append(m) or (2 * y if type(m) is not TwoLayerNet else None)
    ),
    "forward_pre": lambda seen: module_hooks.register_module_forward_pre_hook(
        lambda m, inputs: seen.append(m)
    ),
    "full_backward": lambda seen: module_hooks.register_module_full_backward_hook(
        lambda m, gx, gy: seen.append(m)
    ),
    "full_backward_pre": lambda seen: module_hooks.register_module_full_backward_pre_hook(
        lambda m, gy: seen.append(m)
    ),
}


@pytest.mark.parametrize("register", GLOBAL_HOOKS.values(), ids=GLOBAL_HOOKS)
def test_hooks_on_all_modules(pair, register):
    seen = []
    handle = register(seen)
    try:
        calls = []
        for model in pair:
            results(model)
            calls.append(
                [n for m in seen for n, c in model.named_modules() if c is m and "lin" in n]
            )
            seen.clear()
        assert sorted(calls[0]) == sorted(calls[1]) == sorted(LAYERS)
    finally:
        handle.remove()


def test_a_hook_on_the_activation():
    model = sequential(TwoLayerNet(6, 9, 4))
    seen = []
    model.activation.register_forward_hook(lambda m, inputs, output: seen.append(output.shape))
    model.activation.original.register_forward_hook(lambda m, inputs, output: 0 * output)
    y = model(X)
    assert seen == [(7, 9)]
    torch.testing.assert_close(y, model.linear2.bias.expand(7, 4))


# ---- layers that are something else ----


class Doubling(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


class Quiet(nn.Linear):
    """A subclass without a forward of its own."""


class Adapted(nn.Module):
    """As PEFT wraps a layer: its result and a product of low rank."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def of_class(kind):
    def replace(model, name):
        old = model.get_submodule(name)
        new = kind(old.in_features, old.out_features)
        new.load_state_dict(old.state_dict())
        setattr(model, name, new)

    return replace


def adapt(model, name):
    setattr(model, name, Adapted(model.get_submodule(name)))


def identity(model, name):
    wide = 9 if name == "linear2" else 6
    setattr(model, name, nn.Identity())
    other = "linear1" if name == "linear2" else "linear2"
    setattr(model, other, nn.Linear(6, 9) if other == "linear1" else nn.Linear(wide, 4))


def change_class(model, name):
    model.get_submodule(name).__class__ = Doubling


def own_forward(model, name):
    """As accelerate hooks a layer: its forward is an attribute of the object."""
    layer = model.get_submodule(name)
    old = layer.forward
    layer.forward = lambda x: old(x) - 1


def sequence(model, name):
    setattr(model, name, nn.Sequential(model.get_submodule(name), nn.Tanh()))


def low_precision(model, name):
    """Any class that is no nn.Linear and keeps its weight in another dtype."""

    class Small(nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.weight = nn.Parameter((linear.weight * 50).to(torch.int8), requires_grad=False)
            self.bias = linear.bias

        def forward(self, x):
            return nn.functional.linear(x, self.weight.to(x.dtype) / 50, self.bias)

    setattr(model, name, Small(model.get_submodule(name)))


REPLACEMENTS = [
    of_class(Doubling),
    of_class(Quiet),
    adapt,
    identity,
    own_forward,
    sequence,
    low_precision,
]
IDS = ["doubling", "quiet", "adapted", "identity", "own_forward", "sequence", "low_precision"]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("replace", REPLACEMENTS, ids=IDS)
def test_a_layer_replaced(pair, layer, replace):
    for model in pair:
        torch.manual_seed(1)
        replace(model, layer)
    assert_same(*pair)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_class_changed(layer):
    torch.manual_seed(0)
    plain = TwoLayerNet(6, 9, 4)
    fused = FUSED["FusedTwoLayer"](copy.deepcopy(plain))
    for model in (fused, plain):
        change_class(model, layer)
    assert_same(fused, plain)


def test_a_layer_put_back(pair):
    fused, _ = pair
    before, layer = results(fused), fused.linear1
    fused.linear1 = nn.Identity()
    fused.linear1 = layer
    after = results(fused)
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)


def test_no_layer_at_all(pair):
    for model in pair:
        model.linear1 = None
        with pytest.raises(TypeError):
            model(X)


def test_a_forward_patched_for_all_layers(pair, monkeypatch):
    original = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: original(self, x) + 1)
    assert_same(*pair)


def test_linear_patched(pair, monkeypatch):
    original = torch._C._nn.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w, b=None: original(x, w, b) + 1)
    assert_same(*pair)


# ---- weights that are computed ----

CHANGES = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "tanh": lambda m: parametrize.register_parametrization(m, "weight", nn.Tanh()),
    "bias": lambda m: parametrize.register_parametrization(m, "bias", nn.Softplus()),
    "old_weight_norm": weight_norm,
    "old_spectral_norm": spectral_norm,
    "pruned": lambda m: prune.l1_unstructured(m, "weight", amount=0.3),
    "pruned_bias": lambda m: prune.l1_unstructured(m, "bias", amount=1),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_weights_that_are_computed(pair, layer, change):
    for model in pair:
        torch.manual_seed(1)
        change(model.get_submodule(layer))
    for _ in range(3):  # spectral norms iterate at each call
        torch.manual_seed(2)
        assert_same(*pair)
        for model in pair:
            torch.optim.SGD(model.parameters(), lr=0.05).step()


def test_a_parametrization_of_a_fused_layer_outlives_unfuse():
    model = sequential(TwoLayerNet(6, 9, 4))
    parametrize.register_parametrization(model.linear1, "weight", nn.Tanh())
    expected = model(X)
    assert unfuse(model) == 1
    torch.testing.assert_close(model(X), expected)
    parametrize.remove_parametrizations(model.linear1, "weight")
    assert type(model.linear1) is nn.Linear
    torch.testing.assert_close(model(X), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*quantize:UserWarning")
@pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="no engine for it here"
)
def test_dynamic_quantization(pair):
    outputs = []
    for model in pair:
        unfuse(model)  # it replaces layers by their class, and a fused one has another
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
        assert type(quantized.get_submodule("linear1")) is not nn.Linear
        outputs.append(quantized(X))
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
