"""What is done to a fused model later: changes are followed, and ``unfuse`` keeps them."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from twolayer_kernels import FusedTwoLayer, TwoLayerNet, fuse, unfuse

from .fusible import OwnForward, sequential


def _other_forward(model):
    model.forward = lambda x: model[1](model[0](x))


def _used_again(model):
    torch.manual_seed(0)
    model.append(nn.Linear(4, 4))
    model.append(model[0])


def _dropout_patched(model):
    model[2].forward = lambda h: 2 * h


def _another_class(model):
    model.__class__ = OwnForward


def _last_is_first(model):
    model[3] = model[0]


def _relu_found_and_replaced(model):
    for name, child in list(model.named_children()):
        if isinstance(child, nn.ReLU):
            setattr(model, name, nn.Tanh())


def _dropout_removed(model):
    del model[2]


@pytest.mark.parametrize(
    "change",
    [
        *(_other_forward, _used_again, _another_class, _dropout_patched, _last_is_first),
        *(_relu_found_and_replaced, _dropout_removed),
    ],
    ids=lambda change: change.__name__,
)
def test_what_changes_later_is_followed(change):
    # Square, so that what goes wrong does not end in an error of shapes.
    layers = nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 4)
    model = nn.Sequential(*layers).eval()
    plain = copy.deepcopy(model)
    fuse(model)
    x = torch.randn(5, 4)
    model(x)  # what it remembers of its places is not what is there later
    for m in (model, plain):
        change(m)
    torch.testing.assert_close(model(x), plain(x))


def test_a_layer_at_a_second_attribute_runs_there():
    class Before(nn.Module):
        def __init__(self):
            super().__init__()
            self.pre, self.fc1, self.fc2 = (nn.Linear(4, 4) for _ in range(3))
            self.act = nn.ReLU()

        def forward(self, x):
            return self.fc2(self.act(self.fc1(self.pre(x))))

    plain = Before()
    model = copy.deepcopy(plain)
    assert [site.fused for site in fuse(model)] == [True]
    for m in (model, plain):
        m.pre = m.fc1
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(x), plain(x))


@pytest.mark.parametrize("training", [False, True])
def test_a_tracer_sees_the_layers(training):
    model = sequential(nn.Dropout(0.5)).train(training)
    plain = copy.deepcopy(model)
    fuse(model)
    x = torch.randn(5, 4)
    results = []
    for m in (model, plain):
        traced = torch.fx.symbolic_trace(m).train()
        torch.manual_seed(3)
        results.append(traced(x))
    torch.testing.assert_close(*results)


def test_a_replaced_feed_forward_of_an_encoder_layer_runs(monkeypatch):
    plain = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
    model = copy.deepcopy(plain)
    fuse(model)

    def with_gelu(self, x):
        return self.linear2(nn.functional.gelu(self.linear1(x)))

    monkeypatch.setattr(nn.TransformerEncoderLayer, "_ff_block", with_gelu)
    x = torch.randn(3, 5, 8)
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
        (nn.functional, "dropout", lambda x, *options: 2 * x),
    ],
    ids=["torch.relu", "functional.relu", "nn.ReLU.forward", "functional.dropout"],
)
def test_a_replaced_function_is_called(owner, name, double, monkeypatch):
    fused = sequential(nn.Dropout(0.5)).eval()
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


def test_unfuse_keeps_a_forward_put_on_the_relu_meanwhile():
    model = sequential()
    fuse(model)
    model[1].forward = lambda h: 3 * h
    x = torch.randn(5, 4)
    y = model(x)
    unfuse(model)
    torch.testing.assert_close(model(x), y)


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


def test_a_weight_that_is_replaced_or_parametrized_later_is_used(fused_calls):
    model = sequential()
    fuse(model)
    model[2].weight = nn.Parameter(torch.zeros(3, 8))
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(x), model[2].bias.expand(5, 3))
    nn.utils.parametrizations.weight_norm(model[0])
    plain = torch.nn.functional.linear(x, model[0].weight, model[0].bias)
    torch.testing.assert_close(model(x).shape, (plain.shape[0], 3))


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
