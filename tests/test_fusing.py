"""``fuse`` and ``unfuse``: what is fused, and that results, copies and options stay the same."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from twolayer_kernels import explain, fuse, unfuse
from twolayer_kernels.fusing import FusedFirst

from .fusible import Triple, results, sequential

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
def test_results_keys_and_parameters_stay(make, fused_calls):
    torch.manual_seed(0)
    model = make()
    x = torch.randn(5, 4)
    before, keys = results(model, x), list(model.state_dict())
    parameters = dict(model.named_parameters())
    report = fuse(model)
    assert [site.fused for site in report] == [True], report
    after = results(model, x)
    assert len(fused_calls) == 1
    for name, value in before.items():
        torch.testing.assert_close(after[name], value)
    assert list(model.state_dict()) == keys
    assert all(parameters[name] is p for name, p in model.named_parameters())
    assert isinstance(model.get_submodule(report[0].name.split(", ")[0]), FusedFirst)


@pytest.mark.parametrize("make", FUSED.values(), ids=FUSED)
def test_unfuse_undoes_it(make, fused_calls):
    model = make()
    kinds = [(name, type(m)) for name, m in model.named_modules()]
    fuse(model)
    assert unfuse(model) == 1
    assert [(name, type(m)) for name, m in model.named_modules()] == kinds
    model(torch.randn(5, 4))
    assert fused_calls == []
    assert unfuse(model) == 0


@pytest.mark.parametrize("layer", ["encoder", "decoder"])
@pytest.mark.parametrize("activation", ["relu", nn.ReLU()], ids=["function", "module"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_transformer_layers(layer, activation, training, fused_calls):
    torch.manual_seed(0)
    kind = nn.TransformerEncoderLayer if layer == "encoder" else nn.TransformerDecoderLayer
    model = kind(16, 2, 32, dropout=0.0, activation=activation, batch_first=True).train(training)
    inputs = [torch.randn(3, 5, 16) for _ in range(1 if layer == "encoder" else 2)]
    expected, keys = model(*inputs), list(model.state_dict())
    (site,) = fuse(model)
    assert site.fused
    assert "feed-forward" in site.reason
    torch.testing.assert_close(model(*inputs), expected, atol=1e-5, rtol=1e-5)
    assert len(fused_calls) == 1
    assert list(model.state_dict()) == keys
    assert unfuse(model) == 1
    torch.testing.assert_close(model(*inputs), expected)


def test_gelu_is_no_site():
    assert fuse(nn.TransformerEncoderLayer(16, 2, 32, activation="gelu")) == []
    assert str(fuse(nn.Linear(3, 3))) == "no Linear -> ReLU -> Linear in this model"


def test_dropout_runs_while_training_and_fused_in_eval(fused_calls):
    model = sequential(nn.Dropout(0.5))
    (site,) = fuse(model)
    assert site.fused
    assert "while dropout is off" in site.reason
    x = torch.randn(64, 4)
    torch.manual_seed(0)
    with_dropout = model(x)
    assert fused_calls == []
    unfused = copy.deepcopy(model)
    unfuse(unfused)
    torch.manual_seed(0)
    torch.testing.assert_close(unfused(x), with_dropout)
    model.eval(), unfused.eval()
    torch.testing.assert_close(model(x), unfused(x))
    assert len(fused_calls) == 1


@pytest.mark.parametrize("name", ["0", "1", "2"])
def test_a_hook_added_later_sees_what_it_would_have_seen(name, fused_calls):
    model = sequential()
    plain = copy.deepcopy(model)
    fuse(model)
    x, seen = torch.randn(5, 4), []
    for m in (model, plain):
        m.get_submodule(name).register_forward_hook(lambda _, args, y: seen.append((args[0], y)))
        m(x)
    assert fused_calls == []
    for got, wanted in zip(*seen, strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_relu_shared_between_places_is_fine(fused_calls):
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 2))
    x = torch.randn(5, 4)
    expected = model(x)
    assert [site.fused for site in fuse(model)] == [True]
    torch.testing.assert_close(model(x), expected)
    assert len(fused_calls) == 1
    unfuse(model)
    assert model[1] is model[3]


def test_twice_is_once():
    model = sequential()
    assert len(fuse(model)) == 1
    assert fuse(model) == []


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_fused_and_independent(clone, fused_calls):
    model = sequential()
    fuse(model)
    other = clone(model)
    with torch.no_grad():
        model[2].bias += 1
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(x), other(x) + 1)
    assert len(fused_calls) == 2
    assert unfuse(other) == 1
    assert isinstance(model[0], FusedFirst)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("place", [0, 2])
def test_a_copy_leaves_out_a_layer_that_was_replaced(clone, place, fused_calls):
    """This one could not even be pickled: a parametrized module has a class of its own."""
    model = sequential()
    fuse(model)
    nn.utils.parametrizations.weight_norm(model[place])
    sizes = model[place].in_features, model[place].out_features
    model[place] = nn.Linear(*sizes)
    other = clone(model)
    x = torch.randn(5, 4)
    torch.testing.assert_close(other(x), model(x))
    assert fused_calls == []
    assert unfuse(other) == 1
    assert [type(module) for module in other] == [nn.Linear, nn.ReLU, nn.Linear]
    torch.testing.assert_close(other(x), model(x))


def test_compiles_into_one_graph():
    model = sequential(nn.Dropout(0.5)).eval()
    fuse(model)
    x = torch.randn(5, 4)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    torch._dynamo.reset()


def test_options_are_passed_on(fused_calls):
    model = sequential()
    fuse(model, recompute=True, backend="torch")
    model(torch.randn(5, 4))
    assert fused_calls == [{"recompute": True, "backend": "torch"}]


def test_explain_has_a_line_for_each_site():
    model = nn.Sequential(*sequential(), nn.Tanh())
    fuse(model, backend="torch")
    assert explain(model, torch.randn(5, 4)) == "0: torch (named by the caller)"


@pytest.mark.parametrize("function", [fuse, unfuse])
def test_what_is_no_module_is_refused(function):
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        function(3)
