"""What the models around a chain do with it: ``fuse`` leaves what one of them takes apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from twolayer_kernels import fuse

from .fusible import Triple


def _square():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))


class _Holds(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = _square()
        self.nets = nn.ModuleList([_square()])
        self.named = nn.ModuleDict({"a": _square()})
        self.nested = nn.Sequential(_square())
        self.mlp = Triple()


def _first_two(model, x):
    return model.net[1](model.net[0](x))


class WalksElements(_Holds):
    def forward(self, x):
        for net in self.nets:
            for layer in net:
                x = layer(x)
        return x


class TakesAnElementApart(_Holds):
    def forward(self, x):
        return self.nets[0][0](x)


class TakesANamedOneApart(_Holds):
    def forward(self, x):
        return [layer(x) for net in self.named.values() for layer in net]


class TakesANestedOneApart(_Holds):
    def forward(self, x):
        return self.nested[0][:2](x)


class CallsLayersOfAnother(_Holds):
    def forward(self, x):
        return self.mlp.activation_fn(self.mlp.fc1(x))


class CallsAMethodThatDoes(_Holds):
    def forward(self, x):
        return self.first_of(x)

    def first_of(self, x):
        return self.net[0](x)


class HandsItselfOn(_Holds):
    def forward(self, x):
        return _first_two(self, x)


class LooksForIt(_Holds):
    def forward(self, x):
        return next(iter(self.children()))[0](x)


class ByAnotherName(_Holds):
    def forward(self, x):
        me = self
        return me.net[0](x)


class ByALambda(_Holds):
    forward = lambda self, x: self.net[0](x)  # noqa: E731


class Inherits(CallsAMethodThatDoes):
    def forward(self, x):
        return super().forward(x)


class _Around(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner = kind()


class TakesWhatIsFurtherBelow(_Around):
    def __init__(self):
        super().__init__(_Holds)

    def forward(self, x):
        return self.inner.net[:2](x)


# What is taken apart in each.
APART = {
    WalksElements: "nets.0",
    TakesAnElementApart: "nets.0",
    TakesANamedOneApart: "named.a",
    TakesANestedOneApart: "nested.0",
    CallsLayersOfAnother: "mlp",
    CallsAMethodThatDoes: "net",
    HandsItselfOn: "net",
    LooksForIt: "net",
    ByAnotherName: "net",
    ByALambda: "net",
    Inherits: "net",
    TakesWhatIsFurtherBelow: "inner.net",
}


def _fused(model):
    """The names of the modules that hold a fused chain."""
    return {site.name.split(", ")[0].rpartition(".")[0] for site in fuse(model) if site.fused}


@pytest.mark.parametrize("kind", APART, ids=lambda kind: kind.__name__)
def test_what_a_forward_takes_apart_is_left(kind):
    torch.manual_seed(0)
    model = kind()
    x = torch.randn(5, 4)
    wanted = model(x)
    assert APART[kind] not in _fused(model)
    torch.testing.assert_close(model(x), wanted)


def test_a_forward_without_source_is_not_trusted():
    scope = {"Base": _Holds}
    exec("class Unseen(Base):\n    def forward(self, x):\n        return self.net[0](x)", scope)
    assert _fused(scope["Unseen"]()) == set()


def test_a_forward_put_on_the_object_around_is_not_trusted():
    model = CallsThemWhole()
    model.forward = lambda x: model.net[0](x)
    assert _fused(model) == set()


class CallsThemWhole(_Holds):
    factor = 2.0

    @property
    def doubled(self):
        return 2 * self.factor

    def forward(self, x, last=-1):
        x = x * self.factor - self.doubled
        for i, net in enumerate(self.nets):
            x = net(x) * (i + len(self.nets)) + checkpoint(net, x, use_reentrant=False)
        if x.sum() > 0:
            x = self.nets[last](x) + checkpoint(self.net, x, use_reentrant=False)
        heads = {name: head(x) for name, head in self.named.items()}
        return self.rest(x) + heads["a"] + self.named["a"](x)

    def rest(self, x):
        x = self.nested(x)
        return x if self.net.training and isinstance(self.net, nn.Sequential) else self.mlp(x)


class HandsOnWhatIsFurtherAbove(_Around):
    def __init__(self):
        super().__init__(CallsThemWhole)

    def forward(self, x):
        return checkpoint(self.inner, x) if self.training else self.inner(x)


@pytest.mark.parametrize("kind", [CallsThemWhole, HandsOnWhatIsFurtherAbove])
def test_what_is_called_whole_is_fused(kind):
    prefix = "inner." if kind is HandsOnWhatIsFurtherAbove else ""
    names = "net", "nets.0", "named.a", "nested.0", "mlp"
    model = kind().eval()
    x = torch.randn(5, 4)
    wanted = model(x)
    assert _fused(model) == {prefix + name for name in names}
    torch.testing.assert_close(model(x), wanted)
