"""What :func:`fuse` makes of three modules: how they share the work, and when each does its own.

The first linear layer becomes a :class:`FusedFirst`, the second a :class:`FusedSecond`, and a
:class:`FusedActivation` takes the place of the ReLU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from . import functional
from .transparency import has_own_forward, is_observed, is_scripting, why_called

DROPOUTS = (nn.Dropout,)
_RELU, _RELU_FORWARD = nn.functional.relu, nn.ReLU.forward
_DROPOUT = nn.functional.dropout


class Replaced:
    """In the place of a layer that a copied chain once had: nothing is ever this class."""


class Chain:
    """The modules of one site, and whether their fused form may run now."""

    def __init__(
        self,
        parent: nn.Module,
        names: tuple[str, str, str],
        dropouts: tuple[str, ...],
        options: dict[str, Any],
        method: str,
    ) -> None:
        self.parent, self.names, self.dropouts, self.options = parent, names, dropouts, options
        self.linear1: Any = parent._modules[names[0]]
        self.linear2: Any = parent._modules[names[2]]
        self.activation: Any = None  # comes into its place last
        # What calls the three, one after the other.
        self.callers = {name: getattr(type(parent), name) for name in ("forward", method)}
        # The parent's modules when these were last found in their places, and once each.
        self.children: tuple[Any, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles do without layers that others replaced, as the plain model's do."""
        state = {**self.__dict__, "children": None}
        for own, name in zip(("linear1", "activation", "linear2"), self.names, strict=True):
            if self._at(name) is not state[own]:
                state[own] = Replaced
        return state

    def _at(self, name: str) -> Any:
        """What the parent has under this name; a function's stand-in is a plain attribute."""
        parent = self.parent
        return parent._modules.get(name, parent.__dict__.get(name))

    def runs_fused(self, asking: nn.Module, input: Any) -> bool:
        """Nothing between the layers is to be seen or changed by anybody.

        ``asking`` is the one of the three that is being called: all three decide alike, so none
        may be a copy of its own. What they trace with (a proxy) sees all three.
        """
        own = asking is self.linear1 or asking is self.activation or asking is self.linear2
        return own and isinstance(input, Tensor) and self.why_apart() is None

    def why_apart(self) -> str | None:
        """Why the three do their own part, or ``None`` where the first computes all."""
        linear1, linear2 = self.linear1, self.linear2
        activation: Any = self.activation
        modules, (name1, name_between, name2) = self.parent._modules, self.names
        if (
            modules.get(name1) is not linear1
            or self._at(name_between) is not activation
            or modules.get(name2) is not linear2
        ):
            return "one of the layers is replaced"
        kind = type(self.parent)
        for name, caller in self.callers.items():
            if getattr(kind, name) is not caller or name in self.parent.__dict__:
                return f"{kind.__name__} has another {name} than when it was fused"
        children = tuple(modules.values())
        if children != self.children:
            if not self._are_in_their_places():
                return "the layers are no longer in a row, or in it twice"
            if not torch.compiler.is_compiling():
                self.children = children
        for name in self.dropouts:
            dropout: Any = modules.get(name)
            if type(dropout) not in DROPOUTS:
                return f"{name} is replaced"
            if dropout.training and dropout.p > 0:
                return "dropout is on"
            if has_own_forward(dropout):
                return f"{name} has a forward of its own"
            if is_observed(dropout):
                return f"{name} has hooks"
            if nn.functional.dropout is not _DROPOUT:
                return "torch's dropout is replaced"
        if has_own_forward(activation) or is_observed(activation):
            return f"{name_between} has hooks"
        if nn.functional.relu is not _RELU or nn.ReLU.forward is not _RELU_FORWARD:
            return "torch's ReLU is replaced"
        original = activation.original
        if isinstance(original, nn.Module) and (has_own_forward(original) or is_observed(original)):
            return f"{name_between} has hooks"
        return why_called({name1: linear1, name2: linear2}, (FusedFirst, FusedSecond))

    def run(self, input: Tensor) -> Tensor:
        first, second = self.linear1, self.linear2
        w1, b1 = first.weight, first.bias
        w2, b2 = second.weight, second.bias
        return functional.two_layer(input, w1, w2, b1, b2, **self.options)

    def _are_in_their_places(self) -> bool:
        """Whether the parent has each of these once, a Sequential in a row."""
        modules = self.parent._modules
        first, between, last = self.names
        row = [first, between, *self.dropouts, last]
        children, names = list(modules.values()), list(modules)
        if any(children.count(modules[name]) != 1 for name in row if name in modules):
            return False
        begin = names.index(first)
        return not isinstance(self.parent, nn.Sequential) or names[begin : begin + len(row)] == row


class FusedFirst(nn.Linear):
    """A linear layer that computes the two layers that it begins; made by :func:`fuse`."""

    if TYPE_CHECKING:  # torch.jit.script would want to know what it is
        _chain: Chain

    def forward(self, input: Tensor) -> Tensor:
        if is_scripting():
            return nn.functional.linear(input, self.weight, self.bias)
        chain = self._chain
        if not chain.runs_fused(self, input):
            return super().forward(input)
        return chain.run(input)

    __jit_unused_properties__: ClassVar = ["backend"]

    @property
    def backend(self) -> str | None:
        backend: str | None = self._chain.options["backend"]
        return backend


class FusedSecond(nn.Linear):
    """A linear layer whose work the first one has done; made by :func:`fuse`."""

    if TYPE_CHECKING:
        _chain: Chain

    def forward(self, input: Tensor) -> Tensor:
        if is_scripting():
            return nn.functional.linear(input, self.weight, self.bias)
        return input if self._chain.runs_fused(self, input) else super().forward(input)


class FusedActivation(nn.ReLU):
    """The ReLU between the two; made by :func:`fuse`."""

    if TYPE_CHECKING:
        _chain: Chain
        original: Any

    def __init__(self, chain: Chain, original: Any) -> None:
        super().__init__(inplace=getattr(original, "inplace", False))
        # Not as submodules: neither is this one's.
        self.__dict__["_chain"] = chain
        self.__dict__["original"] = original

    def forward(self, input: Tensor) -> Tensor:
        if is_scripting():
            return nn.functional.relu(input, inplace=self.inplace)
        if self._chain.runs_fused(self, input):
            return input
        if not isinstance(input, Tensor):  # a tracer would look for the original among the modules
            return super().forward(input)
        result: Tensor = self.original(input)
        return result
