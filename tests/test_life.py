"""The life of a module at random: plain and fused side by side, through what one does to it.

``make test`` runs some hundred sequences; ``make test-long`` as many as TWOLAYER_SEQUENCES says.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections import Counter

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from twolayer_kernels import FusedTwoLayer, TwoLayerNet, fuse

SEQUENCES = int(os.environ.get("TWOLAYER_SEQUENCES", "300"))
STEPS = 10
COUNTS: Counter[str] = Counter()

layers = st.sampled_from(["linear1", "linear2"])
seeds = st.integers(0, 1000)
# One in so many: a compilation takes as long as a hundred other steps.
rarely = st.integers(0, 39).map(lambda n: n == 7)


class Doubling(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


class Adapted(nn.Module):
    def __init__(self, base):
        super().__init__()
        like = next(base.parameters())
        self.base = base
        shape = SHAPES["linear1"] if like.shape[-1] == 3 else SHAPES["linear2"]
        self.down = nn.Linear(shape[0], 2, bias=False, dtype=like.dtype)
        self.up = nn.Linear(2, shape[1], bias=False, dtype=like.dtype)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


SHAPES = {"linear1": (3, 5), "linear2": (5, 2)}


# At the top of the module, so that a module with them can be copied and pickled.
def double_result(module, inputs, output):
    return 2 * output


def shift_input(module, inputs):
    return (inputs[0] + 1,)


def halve_gradient(module, grad_input, grad_output):
    return tuple(None if g is None else g / 2 for g in grad_input)


def triple_incoming(module, grad_output):
    return tuple(None if g is None else 3 * g for g in grad_output)


HOOKS = {
    "forward": lambda m: m.register_forward_hook(double_result),
    "forward_pre": lambda m: m.register_forward_pre_hook(shift_input),
    "backward": lambda m: m.register_full_backward_hook(halve_gradient),
    "backward_pre": lambda m: m.register_full_backward_pre_hook(triple_incoming),
}
REPLACEMENTS = {
    "linear": lambda old, shape, dtype: nn.Linear(*shape, dtype=dtype),
    "no_bias": lambda old, shape, dtype: nn.Linear(*shape, bias=False, dtype=dtype),
    "doubling": lambda old, shape, dtype: Doubling(*shape, dtype=dtype),
    "adapted": lambda old, shape, dtype: Adapted(old),
    "sequence": lambda old, shape, dtype: nn.Sequential(old, nn.Tanh()),
    "wrong_shape": lambda old, shape, dtype: nn.Linear(4, 4, dtype=dtype),
    "other_dtype": lambda old, shape, dtype: nn.Linear(*shape, dtype=torch.float16),
}
PARAMETRIZATIONS = {
    "weight_norm": parametrizations.weight_norm,
    "tanh": lambda m: parametrize.register_parametrization(m, "weight", nn.Tanh()),
    "bias": lambda m: parametrize.register_parametrization(m, "bias", nn.Softplus()),
    "pruned": lambda m: prune.l1_unstructured(m, "weight", amount=0.4),
}
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


def chain():
    """Neighbours that ``fuse`` may fuse, under the names of the others."""
    model = nn.Sequential()
    model.add_module("linear1", nn.Linear(3, 5))
    model.add_module("activation", nn.ReLU())
    model.add_module("linear2", nn.Linear(5, 2))
    return model


def attempt(action, model):
    """What it gives or raises; each of the two networks has its own words for a fault."""
    try:
        return action(model)
    except Exception as error:
        return error


class Life(RuleBasedStateMachine):
    @initialize(fused=st.booleans(), seed=seeds)
    def start(self, fused, seed):
        COUNTS["sequences"] += 1
        torch.manual_seed(seed)
        self.dtype = torch.float32
        self.handles = []
        if fused:
            models = [chain(), chain()]
            fuse(models[0])
        else:
            models = [FusedTwoLayer(3, 5, 2), TwoLayerNet(3, 5, 2)]
        models[0].load_state_dict(models[1].state_dict())
        self.models = models

    def both(self, action):
        """Does it to both: the outcomes are the same, be it results or that it cannot be done."""
        COUNTS["steps"] += 1
        state = torch.get_rng_state()
        outcomes = []
        for model in self.models:
            torch.set_rng_state(state)
            outcomes.append(attempt(action, model))
        ours, theirs = outcomes
        failed = [isinstance(o, Exception) for o in outcomes]
        assert failed[0] == failed[1], f"fused: {ours!r}; plain: {theirs!r}"
        if failed[0]:
            COUNTS["raised by both"] += 1
        else:
            self.compare(ours, theirs)
        return outcomes

    def compare(self, ours, theirs):
        low = self.dtype == torch.bfloat16
        tolerance = {"rtol": 0.1, "atol": 0.1} if low else {"rtol": 1e-4, "atol": 1e-4}
        if isinstance(ours, dict):
            assert list(ours) == list(theirs)
            for name in ours:
                self.compare(ours[name], theirs[name])
        elif isinstance(ours, torch.Tensor):
            # In bfloat16 the sizes of the numbers decide what a rounding is.
            scale = max(1.0, float(theirs.detach().abs().max())) if theirs.numel() else 1.0
            torch.testing.assert_close(ours / scale, theirs / scale, equal_nan=True, **tolerance)
        else:
            assert ours == theirs

    def x(self, batch=4):
        return torch.linspace(-1, 1, batch * 3).cos().reshape(batch, 3).to(self.dtype)

    @invariant()
    def they_are_alike(self):
        def everything(model):
            x = self.x().requires_grad_()
            model.zero_grad()
            y = model(x)
            (y * torch.linspace(1, 2, y.numel()).reshape(y.shape).to(y.dtype)).sum().backward()
            found = {"y": y.detach(), "x": x.grad}
            return found | {name: p.grad for name, p in model.named_parameters()}

        if hasattr(self, "models"):
            self.both(everything)
            self.both(lambda model: {"inference": torch.inference_mode()(model)(self.x(1))})

    # ---- what one does to a network ----

    @rule(rate=st.sampled_from([0.01, 0.1]))
    def train_step(self, rate):
        def step(model):
            parameters = [p for p in model.parameters() if p.requires_grad]
            torch.optim.SGD(parameters, lr=rate).zero_grad()
            model(self.x()).square().mean().backward()
            torch.optim.SGD(parameters, lr=rate).step()

        self.both(step)
        with torch.no_grad():  # roundings must not add up over a life
            for p, q in zip(*(m.parameters() for m in self.models), strict=True):
                self.compare(p.detach(), q.detach())
                p.copy_(q)

    @rule(training=st.booleans())
    def mode(self, training):
        self.both(lambda model: model.train(training) and None)

    @rule(layer=layers, kind=st.sampled_from(sorted(HOOKS)))
    def hook(self, layer, kind):
        handles = [attempt(lambda m: HOOKS[kind](m.get_submodule(layer)), m) for m in self.models]
        self.handles.append(handles)

    @precondition(lambda self: self.handles)
    @rule()
    def unhook(self):
        for handle in self.handles.pop():
            if not isinstance(handle, Exception):
                handle.remove()

    @rule(layer=layers, kind=st.sampled_from(sorted(REPLACEMENTS)), seed=seeds)
    def replace(self, layer, kind, seed):
        def act(model):
            torch.manual_seed(seed)
            new = REPLACEMENTS[kind](model.get_submodule(layer), SHAPES[layer], self.dtype)
            setattr(model, layer, new)

        self.both(act)

    @rule(layer=layers, kind=st.sampled_from(sorted(PARAMETRIZATIONS)))
    def parametrize(self, layer, kind):
        self.both(lambda model: PARAMETRIZATIONS[kind](model.get_submodule(layer)) and None)

    @rule(layer=layers, name=st.sampled_from(["weight", "bias"]))
    def unparametrize(self, layer, name):
        def act(model):
            module = model.get_submodule(layer)
            if parametrize.is_parametrized(module, name):
                parametrize.remove_parametrizations(module, name)
            elif prune.is_pruned(module):
                prune.remove(module, "weight")

        self.both(act)

    @rule(dtype=DTYPES)
    def to(self, dtype):
        self.dtype = dtype
        self.both(lambda model: model.to(dtype) and None)

    @rule(layer=layers, frozen=st.booleans())
    def freeze(self, layer, frozen):
        self.both(lambda model: model.get_submodule(layer).requires_grad_(not frozen) and None)

    @rule(how=st.sampled_from(["deepcopy", "pickle"]))
    def copied(self, how):
        copier = copy.deepcopy if how == "deepcopy" else lambda m: pickle.loads(pickle.dumps(m))
        # What cannot be copied (a parametrized module has a class of its own) stays as it was.
        for model in self.models:
            model.zero_grad()
        copies = [attempt(copier, model) for model in self.models]
        failed = [isinstance(c, Exception) for c in copies]
        assert failed[0] == failed[1], copies
        if not failed[0]:
            self.models, self.handles = copies, []

    @rule(assign=st.booleans())
    def state_dict_round_trip(self, assign):
        def act(model):
            state = copy.deepcopy(model.state_dict())
            model.load_state_dict({k: v / 2 for k, v in state.items()}, assign=assign)

        self.both(act)

    @rule()
    def exchange_states(self):
        """A checkpoint of each loads into the other."""
        states = [copy.deepcopy(model.state_dict()) for model in self.models]
        for model, state in zip(self.models, reversed(states), strict=True):
            model.load_state_dict(state)

    @rule(layer=layers, seed=seeds)
    def swap_tensors(self, layer, seed):
        def act(model):
            torch.manual_seed(seed)
            model.zero_grad()
            weight = model.get_submodule(layer).weight
            new = nn.Parameter(torch.randn_like(weight))
            try:
                torch.utils.swap_tensors(weight, new)
            except RuntimeError as error:  # something that is not collected yet holds the weight
                if "use_count" not in str(error):
                    raise
                weight.data = new.data

        self.both(act)

    @rule(factor=st.sampled_from([0.5, 2.0]))
    def functional_call(self, factor):
        def act(model):
            values = {name: p.detach() * factor for name, p in model.named_parameters()}
            return {"y": torch.func.functional_call(model, values, (self.x(),))}

        self.both(act)

    @rule()
    def per_sample(self):
        def act(model):
            return {"y": torch.func.vmap(model)(self.x())}

        self.both(act)

    @rule(now=rarely)
    def compile(self, now):
        if now:
            COUNTS["compilations"] += 1
            torch._dynamo.reset()
            self.both(lambda m: {"y": torch.compile(m, backend="aot_eager")(self.x())})

    @rule(bad=st.sampled_from(["columns", "dtype", "kind", "empty", "leading"]))
    def call(self, bad):
        x = {
            "columns": torch.ones(4, 7, dtype=self.dtype),
            "dtype": torch.ones(4, 3, dtype=torch.int64),
            "kind": [[1.0, 2.0, 3.0]],
            "empty": self.x()[:0],
            "leading": self.x().reshape(2, 2, 3),
        }[bad]
        self.both(lambda model: {"y": model(x)})


@pytest.mark.filterwarnings("ignore")  # of the compiler, and of what is done on purpose
def test_lives(capsys):
    COUNTS.clear()
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
        ),
    )
    with capsys.disabled():
        print(f"\nlives: {dict(COUNTS)}")
    assert COUNTS["sequences"] >= min(SEQUENCES, 100)
