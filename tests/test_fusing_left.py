"""What ``fuse`` leaves alone since it cannot be proven, and the reasons that it gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from twolayer_kernels import fuse
from twolayer_kernels.fusing import FusedFirst

from .fusible import Branching, OwnForward, sequential


class FunctionalRelu(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class HiddenIsUsedTwice(Branching):
    def forward(self, x):
        h = self.act(self.fc1(x))
        return self.fc2(h) + h.sum()


class RunsTwice(Branching):
    def forward(self, x):
        return self.fc2(self.act(self.fc1(x))) + self.act(x).sum()


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


def calls_a_function_around_it():
    def twice(h):
        return 2 * h

    class Calls(Branching):
        def forward(self, x):
            return self.fc2(twice(self.act(self.fc1(x))))

    return Calls()


class Imports(Branching):
    def forward(self, x):
        import torch.nn.functional as F

        return self.fc2(F.relu(self.act(self.fc1(x))))


class PicksByProperty(Branching):
    @property
    def now(self):
        return self.act if self.training else nn.Identity()

    def forward(self, x):
        return self.fc2(self.now(self.fc1(x)))


class PicksByNumber(Branching):
    skips = 0

    def forward(self, x):
        h = self.act(self.fc1(x))
        return self.fc2((h, x)[self.skips])


class GoesByAnotherName(Branching):
    def forward(self, x):
        me = self
        return me.fc2(me.act(me.fc1(x)))


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
    "function_around": (calls_a_function_around_it, "its forward calls twice"),
    "imports": (Imports, "its forward imports something"),
    "property": (PicksByProperty, "its forward calls self.now"),
    "number": (PicksByNumber, "its forward selects by what may change"),
    "other_name": (GoesByAnotherName, "its forward hands itself on"),
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
