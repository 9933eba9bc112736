"""``fuse`` and ``unfuse``: what is fused, what is left and why, and that results stay the same."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from twolayer_kernels import FusedTwoLayer, TwoLayerNet, explain, functional, fuse, unfuse
from twolayer_kernels.fusing import FusedFirst


@pytest.fixture
def calls(monkeypatch):
    """How often the fused function ran."""
    seen = []
    original = functional.two_layer

    def watched(*args, **kwargs):
        seen.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(functional, "two_layer", watched)
    return seen


def sequential(*between):
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *between, nn.Linear(8, 3))


class Triple(nn.Module):
    """As the feed-forwards of transformers: three attributes, some code around them."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.fc1 = nn.Linear(4, 8)
        self.activation_fn = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(8, 4)

    def forward(self, x):
        h = self.dropout(self.activation_fn(self.fc1(x.reshape(-1, 4))))
        return x + self.fc2(h).reshape(x.shape)


class FunctionalRelu(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x):
        if x.sum() > 0:
            return self.fc2(self.act(self.fc1(x)))
        return self.fc2(self.fc1(x))


class HiddenIsUsedTwice(Branching):
    def forward(self, x):
        h = self.act(self.fc1(x))
        return self.fc2(h) + h.sum()


class RunsTwice(Branching):
    def forward(self, x):
        return self.fc2(self.act(self.fc1(x))) + self.act(x).sum()


class OwnForward(nn.Sequential):
    def forward(self, x):
        return self[2](self[0](x))


def results(model, x):
    """The output and every gradient."""
    x = x.clone().requires_grad_()
    y = model(x)
    weights = torch.arange(1.0, y.numel() + 1).reshape(y.shape)
    names, leaves = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad((y * weights).sum(), [x, *leaves])
    return {"y": y.detach()} | dict(zip(("x", *names), gradients, strict=True))


FUSED = {
    "sequential": lambda: sequential(),
    "dropout_of_0": lambda: sequential(nn.Dropout(0.0)),
    "eval_dropout": lambda: sequential(nn.Dropout(0.5)).eval(),
    "longer": lambda: nn.Sequential(nn.Tanh(), *sequential(), nn.ReLU(), nn.Linear(3, 2)),
    "nested": lambda: nn.ModuleDict({"net": sequential()})["net"],
    "triple": lambda: Triple(),
    "triple_eval": lambda: Triple(0.5).eval(),
}


@pytest.mark.parametrize("make", FUSED.values(), ids=FUSED)
def test_results_keys_and_parameters_stay(make, calls):
    torch.manual_seed(0)
    model = make()
    x = torch.randn(5, 4)
    before, keys = results(model, x), list(model.state_dict())
    parameters = dict(model.named_parameters())
    report = fuse(model)
    assert [site.fused for site in report] == [True], report
    after = results(model, x)
    assert len(calls) == 1
    for name, value in before.items():
        torch.testing.assert_close(after[name], value)
    assert list(model.state_dict()) == keys
    assert all(parameters[name] is p for name, p in model.named_parameters())
    assert isinstance(model.get_submodule(report[0].name.split(", ")[0]), FusedFirst)


@pytest.mark.parametrize("make", FUSED.values(), ids=FUSED)
def test_unfuse_undoes_it(make, calls):
    model = make()
    kinds = [(name, type(m)) for name, m in model.named_modules()]
    fuse(model)
    assert unfuse(model) == 1
    assert [(name, type(m)) for name, m in model.named_modules()] == kinds
    model(torch.randn(5, 4))
    assert calls == []
    assert unfuse(model) == 0


@pytest.mark.parametrize("layer", ["encoder", "decoder"])
@pytest.mark.parametrize("activation", ["relu", nn.ReLU()], ids=["function", "module"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_transformer_layers(layer, activation, training, calls):
    torch.manual_seed(0)
    kind = nn.TransformerEncoderLayer if layer == "encoder" else nn.TransformerDecoderLayer
    model = kind(16, 2, 32, dropout=0.0, activation=activation, batch_first=True).train(training)
    inputs = [torch.randn(3, 5, 16) for _ in range(1 if layer == "encoder" else 2)]
    expected, keys = model(*inputs), list(model.state_dict())
    (site,) = fuse(model)
    assert site.fused
    assert "feed-forward" in site.reason
    torch.testing.assert_close(model(*inputs), expected, atol=1e-5, rtol=1e-5)
    assert len(calls) == 1
    assert list(model.state_dict()) == keys
    assert unfuse(model) == 1
    torch.testing.assert_close(model(*inputs), expected)


def test_gelu_is_no_site():
    assert fuse(nn.TransformerEncoderLayer(16, 2, 32, activation="gelu")) == []
    assert str(fuse(nn.Linear(3, 3))) == "no Linear -> ReLU -> Linear in this model"


def test_dropout_runs_while_training_and_fused_in_eval(calls):
    model = sequential(nn.Dropout(0.5))
    (site,) = fuse(model)
    assert site.fused
    assert "while dropout is off" in site.reason
    x = torch.randn(64, 4)
    torch.manual_seed(0)
    with_dropout = model(x)
    assert calls == []
    unfused = copy.deepcopy(model)
    unfuse(unfused)
    torch.manual_seed(0)
    torch.testing.assert_close(unfused(x), with_dropout)
    model.eval(), unfused.eval()
    torch.testing.assert_close(model(x), unfused(x))
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["0", "1", "2"])
def test_a_hook_added_later_sees_what_it_would_have_seen(name, calls):
    model = sequential()
    plain = copy.deepcopy(model)
    fuse(model)
    x, seen = torch.randn(5, 4), []
    for m in (model, plain):
        m.get_submodule(name).register_forward_hook(lambda _, args, y: seen.append((args[0], y)))
        m(x)
    assert calls == []
    for got, wanted in zip(*seen, strict=True):
        torch.testing.assert_close(got, wanted)


def shared_linear():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 4), layer)


def same_linear_twice():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


def hooked():
    model = sequential()
    model[1].register_forward_hook(lambda *_: None)
    return model


def parametrized():
    model = sequential()
    nn.utils.parametrizations.weight_norm(model[0])
    return model


def other_dtype():
    model = sequential()
    model[2].double()
    return model


class Keeps(Branching):
    def forward(self, x):
        self.hidden = self.act(self.fc1(x))
        return self.fc2(self.hidden)


class FrozenTrunk(Branching):
    def forward(self, x):
        with torch.no_grad():
            h = self.act(self.fc1(x))
        return self.fc2(h)


class Decorated(Branching):
    @torch.no_grad()
    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Appends(Branching):
    def forward(self, x):
        h = self.act(self.fc1(x))
        self.seen.append(h)
        return self.fc2(h)


class Helps(Branching):
    def forward(self, x):
        return self.fc2(self.shift(self.act(self.fc1(x))))

    def shift(self, h):
        return h * 2 if self.training else h


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x):
        return self.last(self.net[1](self.net[0](x)))

    def last(self, h):
        return self.net[2](h) + h


def forward_on_the_object():
    model = sequential()
    model.forward = lambda x: model[1](model[0](x))
    return model


LEFT = {
    "keeps": (Keeps, "its forward keeps something (line 2 of it)"),
    "context": (FrozenTrunk, "its forward has a with statement"),
    "decorated": (Decorated, "its forward is decorated"),
    "appends": (Appends, "for its side effect"),
    "helps": (Helps, "its forward calls self.shift"),
    "taken_apart": (Residual, "the forward of Residual does more with net than call it"),
    "shared": (shared_linear, "0 is shared"),
    "same_twice": (same_linear_twice, "0 is shared"),
    "hooked": (hooked, "1 has hooks"),
    "parametrized": (parametrized, "not a plain nn.Linear"),
    "dtypes": (other_dtype, "differ in dtype"),
    "function": (FunctionalRelu, "ReLU is a function"),
    "branching": (Branching, "its forward branches or loops"),
    "runs_twice": (RunsTwice, "act runs more than once"),
}


@pytest.mark.parametrize(("make", "reason"), LEFT.values(), ids=LEFT)
def test_what_cannot_be_proven_is_left_and_said(make, reason):
    model = make()
    kinds = [type(m) for m in model.modules()]
    report = fuse(model)
    assert [site.fused for site in report] == [False]
    assert reason in report[0].reason
    assert "left as it is" in str(report)
    assert [type(m) for m in model.modules()] == kinds


@pytest.mark.parametrize("make", [HiddenIsUsedTwice, lambda: OwnForward(*sequential())])
def test_what_is_no_chain_is_no_site(make):
    model = make()
    fuse(model)
    assert not any(isinstance(m, FusedFirst) for m in model.modules())


def test_a_sequential_with_a_forward_put_on_it_is_no_site():
    model = forward_on_the_object()
    fuse(model)
    assert not any(isinstance(m, FusedFirst) for m in model.modules())


def test_fuse_changes_nothing_but_what_it_fuses():
    class Counts(Branching):
        def forward(self, x):
            self.steps = self.steps + torch.rand(())
            return self.fc2(self.act(self.fc1(x)))

    model = Counts()
    model.register_buffer("steps", torch.zeros(()))
    before = torch.get_rng_state()
    fuse(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.steps == 0


def _other_forward(model):
    model.forward = lambda x: model[1](model[0](x))


def _used_again(model):
    torch.manual_seed(0)
    model.append(nn.Linear(3, 4))
    model.append(model[0])


def _dropout_patched(model):
    model[2].forward = lambda h: 2 * h


def _another_class(model):
    model.__class__ = OwnForward


@pytest.mark.parametrize(
    "change",
    [_other_forward, _used_again, _another_class, _dropout_patched],
    ids=lambda change: change.__name__,
)
def test_what_changes_later_is_followed(change):
    model = sequential(nn.Dropout(0.5)).eval()
    plain = copy.deepcopy(model)
    fuse(model)
    for m in (model, plain):
        change(m)
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(x), plain(x))


def test_a_module_put_between_under_another_name_is_followed():
    layers = {"fc1": nn.Linear(4, 8), "act": nn.ReLU(), "fc2": nn.Linear(8, 3)}
    model = nn.Sequential(OrderedDict(layers))
    plain = copy.deepcopy(model)
    fuse(model)
    for m in (model, plain):
        last = m.fc2
        del m.fc2
        m.add_module("tanh", nn.Tanh())
        m.add_module("fc2", last)
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(x), plain(x))


@pytest.mark.parametrize(
    ("owner", "name", "double"),
    [
        (torch, "relu", lambda x: 2 * x),
        (nn.functional, "relu", lambda x, inplace=False: 2 * x),
        (nn.ReLU, "forward", lambda self, x: 2 * x),
    ],
    ids=["torch.relu", "functional.relu", "nn.ReLU.forward"],
)
def test_a_replaced_relu_is_called(owner, name, double, monkeypatch):
    fused = sequential()
    plain = copy.deepcopy(fused)
    fuse(fused)
    pairs = [(fused, plain), (FusedTwoLayer(4, 8, 3), TwoLayerNet(4, 8, 3))]
    pairs[1][0].load_state_dict(pairs[1][1].state_dict())
    monkeypatch.setattr(owner, name, double)
    x = torch.randn(5, 4)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours(x), theirs(x))


def test_unfuse_keeps_hooks_put_on_the_relu_meanwhile():
    model = sequential()
    fuse(model)
    seen = []
    handle = model[1].register_forward_hook(lambda module, args, y: seen.append(y))
    unfuse(model)
    x = torch.randn(5, 4)
    model(x)
    assert len(seen) == 1
    handle.remove()
    model(x)
    assert len(seen) == 1


def test_unfuse_keeps_what_kind_a_backward_hook_is():
    model = sequential()
    fuse(model)
    seen = []
    model[1].register_full_backward_hook(lambda module, *grads: seen.append(grads))
    unfuse(model)
    model(torch.randn(5, 4)).sum().backward()
    ((inputs, outputs),) = seen
    assert inputs[0].shape == outputs[0].shape == (5, 8)
    assert model[1]._is_full_backward_hook


def test_unfuse_with_a_stand_in_at_two_places():
    old = sequential()
    fuse(old)
    model = nn.ModuleList([nn.Sequential(*old), old])
    assert unfuse(model) == 2
    for m in model:
        assert [type(module) for module in m] == [nn.Linear, nn.ReLU, nn.Linear]


def test_a_relu_shared_between_places_is_fine(calls):
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 2))
    x = torch.randn(5, 4)
    expected = model(x)
    assert [site.fused for site in fuse(model)] == [True]
    torch.testing.assert_close(model(x), expected)
    assert len(calls) == 1
    unfuse(model)
    assert model[1] is model[3]


def test_twice_is_once():
    model = sequential()
    assert len(fuse(model)) == 1
    assert fuse(model) == []


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_fused_and_independent(clone, calls):
    model = sequential()
    fuse(model)
    other = clone(model)
    with torch.no_grad():
        model[2].bias += 1
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(x), other(x) + 1)
    assert len(calls) == 2
    assert unfuse(other) == 1
    assert isinstance(model[0], FusedFirst)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("place", [0, 2])
def test_a_copy_leaves_out_a_layer_that_was_replaced(clone, place, calls):
    """This one could not even be pickled: a parametrized module has a class of its own."""
    model = sequential()
    fuse(model)
    nn.utils.parametrizations.weight_norm(model[place])
    sizes = model[place].in_features, model[place].out_features
    model[place] = nn.Linear(*sizes)
    other = clone(model)
    x = torch.randn(5, 4)
    torch.testing.assert_close(other(x), model(x))
    assert calls == []
    assert unfuse(other) == 1
    assert [type(module) for module in other] == [nn.Linear, nn.ReLU, nn.Linear]
    torch.testing.assert_close(other(x), model(x))


def test_a_weight_that_is_replaced_or_parametrized_later_is_used(calls):
    model = sequential()
    fuse(model)
    model[2].weight = nn.Parameter(torch.zeros(3, 8))
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(x), model[2].bias.expand(5, 3))
    nn.utils.parametrizations.weight_norm(model[0])
    plain = torch.nn.functional.linear(x, model[0].weight, model[0].bias)
    torch.testing.assert_close(model(x).shape, (plain.shape[0], 3))


def test_compiles_into_one_graph():
    model = sequential(nn.Dropout(0.5)).eval()
    fuse(model)
    x = torch.randn(5, 4)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    torch._dynamo.reset()


def test_options_are_passed_on(calls):
    model = sequential()
    fuse(model, recompute=True, backend="torch")
    model(torch.randn(5, 4))
    assert calls == [{"recompute": True, "backend": "torch"}]


def test_explain_has_a_line_for_each_site():
    model = nn.Sequential(*sequential(), nn.Tanh())
    fuse(model, backend="torch")
    assert explain(model, torch.randn(5, 4)) == "0: torch (named by the caller)"


@pytest.mark.parametrize("function", [fuse, unfuse])
def test_what_is_no_module_is_refused(function):
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        function(3)


def test_another_function_can_be_assigned_to_a_fused_encoder_layer():
    plain = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    layer = copy.deepcopy(plain)
    (site,) = fuse(layer)
    assert site.fused
    assert [name for name, _ in layer.named_modules()] == [n for n, _ in plain.named_modules()]
    for model in (layer, plain):
        model.activation = nn.functional.gelu
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(layer(x), plain(x))
    assert unfuse(layer) == 0
