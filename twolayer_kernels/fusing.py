"""``fuse``: every provable ``Linear -> ReLU -> Linear`` in a model, fused in place.

The modules stay where they are, with their parameters, names and state-dict keys. The first linear
layer becomes a :class:`FusedFirst`, which computes both layers; the activation and the second layer
let that result pass. Whenever something between them wants to be seen (dropout while training, a
hook), all three do their own part again, so a fused model is right in every mode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from .chains import DROPOUTS, Chain, FusedActivation, FusedFirst, FusedSecond, Replaced
from .reading import why_unclear
from .transparency import is_observed
from .uses import Owners, owners_in, why_taken_apart

# Modules that run these attributes in a row, with control flow that tracing cannot follow: (first
# linear layer, activation, second linear layer, dropouts between them, the method that does).
_OF_TRANSFORMERS = ("linear1", "activation", "linear2", ("dropout",), "_ff_block")
_KNOWN = {
    "torch.nn.modules.transformer.TransformerEncoderLayer": _OF_TRANSFORMERS,
    "torch.nn.modules.transformer.TransformerDecoderLayer": _OF_TRANSFORMERS,
    "transformers.models.opt.modeling_opt.OPTDecoderLayer": (
        *("fc1", "activation_fn", "fc2", (), "forward"),
    ),
    "transformers.models.t5.modeling_t5.T5DenseActDense": (
        *("wi", "act", "wo", ("dropout",), "forward"),
    ),
}
_RELU_FUNCTIONS = (
    torch.relu,
    torch.relu_,
    nn.functional.relu,
    nn.functional.relu_,
)


class Site(NamedTuple):
    """One place in a model, and what was decided about it."""

    name: str
    fused: bool
    reason: str


class Report(list[Site]):
    """What :func:`fuse` did and did not do, a :class:`Site` each; prints as a line each."""

    def __str__(self) -> str:
        if not self:
            return "no Linear -> ReLU -> Linear in this model"
        return "\n".join(
            f"{site.name}: {'fused' if site.fused else 'left as it is'} ({site.reason})"
            for site in self
        )


class _Candidate(NamedTuple):
    parent: nn.Module
    linear1: str
    activation: str
    linear2: str
    dropouts: tuple[str, ...]
    problem: str | None = None
    method: str = "forward"  # of the parent, that calls them


def _is_relu(activation: Any) -> bool:
    return type(activation) is nn.ReLU or activation in _RELU_FUNCTIONS


def _in_sequential(parent: nn.Module) -> Iterator[_Candidate]:
    """Linear, ReLU and Linear in a row, dropouts allowed after the ReLU."""
    children = list(parent._modules.items())
    at = 0
    while at < len(children):
        end = at + 2
        while end < len(children) and isinstance(children[end][1], DROPOUTS):
            end += 1
        if end < len(children):
            (first, a), (activation, b), (second, c) = children[at], children[at + 1], children[end]
            if isinstance(a, nn.Linear) and type(b) is nn.ReLU and isinstance(c, nn.Linear):
                between = tuple(name for name, _ in children[at + 2 : end])
                yield _Candidate(parent, first, activation, second, between)
                at = end + 1  # a linear layer belongs to one site
                continue
        at += 1


def _name_of_class(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _is_known(module: nn.Module) -> bool:
    return _name_of_class(module) in _KNOWN


def _of_known_class(parent: nn.Module) -> Iterator[_Candidate]:
    first, activation, second, dropouts, method = _KNOWN[_name_of_class(parent)]
    if _is_relu(getattr(parent, activation)):
        yield _Candidate(parent, first, activation, second, dropouts, method=method)


class _Leaves(fx.Tracer):
    """Looks into the forward of one module, and takes its children as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _only_user(node: fx.Node) -> fx.Node | None:
    """The one call that takes this node's result as its first argument, and no other call does."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].args[:1] == (node,) else None


def _is_relu_call(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in _RELU_FUNCTIONS


def _by_tracing(parent: nn.Module) -> Iterator[_Candidate]:
    """Chains in the traced forward of a module that has linear layers as attributes."""
    children = dict(parent.named_children())
    linears = [name for name, child in children.items() if isinstance(child, nn.Linear)]
    relus = [name for name, child in children.items() if type(child) is nn.ReLU]
    if len(linears) < 2:
        return
    unclear = why_unclear(parent)
    if unclear is not None:
        if relus:
            yield _Candidate(parent, linears[0], relus[0], linears[1], (), unclear)
        return
    try:
        with torch.random.fork_rng(devices=[]):
            graph = _Leaves().trace(parent)
    except Exception as error:  # whatever a model's forward does with a proxy
        if relus:
            why = f"its forward cannot be traced: {str(error).splitlines()[0]}"
            yield _Candidate(parent, linears[0], relus[0], linears[1], (), why)
        return
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")

    def child_of(node: fx.Node | None, names: list[str]) -> str | None:
        """The name of the child that the node calls, if it is one of these."""
        if node is None or node.op != "call_module" or node.target not in names:
            return None
        return str(node.target)

    dropout_names = [name for name, child in children.items() if isinstance(child, DROPOUTS)]
    taken: set[str] = set()
    for node in graph.nodes:
        first = child_of(node, linears)
        activation = _only_user(node)
        if first is None or first in taken or activation is None:
            continue
        relu = child_of(activation, relus)
        if relu is None and not _is_relu_call(activation):
            continue
        dropouts: list[str] = []
        following = _only_user(activation)
        while following is not None and child_of(following, dropout_names) is not None:
            dropouts.append(str(following.target))
            following = _only_user(following)
        second = child_of(following, linears)
        if second is None:
            continue
        problem: str | None = None
        if relu is None:
            problem = "its ReLU is a function; an nn.ReLU or FusedTwoLayer could be fused"
        repeated = [name for name in (first, relu, second) if name and calls[name] > 1]
        if repeated:
            problem = f"{', '.join(repeated)} runs more than once in forward"
        taken |= {first, second}
        yield _Candidate(parent, first, relu or "relu", second, tuple(dropouts), problem)


def _runs_in_a_row(parent: nn.Module) -> bool:
    """Whether it is a Sequential with the forward of one."""
    of_class = isinstance(parent, nn.Sequential) and type(parent).forward is nn.Sequential.forward
    return of_class and "forward" not in parent.__dict__


def _candidates(parent: nn.Module) -> Iterator[_Candidate]:
    if _runs_in_a_row(parent):
        yield from _in_sequential(parent)
    elif _is_known(parent):
        yield from _of_known_class(parent)
    elif not isinstance(parent, (FusedActivation, nn.ModuleList, nn.ModuleDict)):
        yield from _by_tracing(parent)


def _why_not(candidate: _Candidate, places: Counter[int], owners: Owners) -> str | None:
    """What forbids to fuse, or ``None``."""
    if candidate.problem is not None:
        return candidate.problem
    parent = candidate.parent
    for name in (candidate.linear1, candidate.linear2):
        linear = getattr(parent, name)
        if type(linear) is not nn.Linear:
            return f"{name} is a {type(linear).__name__}, not a plain nn.Linear"
        if places[id(linear)] > 1:
            return f"{name} is shared with another place in the model"
    first, second = getattr(parent, candidate.linear1), getattr(parent, candidate.linear2)
    if first is second:
        return f"{candidate.linear1} and {candidate.linear2} are one module"
    for name in (candidate.linear1, candidate.activation, candidate.linear2, *candidate.dropouts):
        module = getattr(parent, name)
        if isinstance(module, nn.Module) and is_observed(module):
            return f"{name} has hooks"
        if isinstance(module, nn.Module) and "forward" in module.__dict__:
            return f"{name} has a forward of its own"
    if first.weight.dtype != second.weight.dtype:
        return f"{candidate.linear1} and {candidate.linear2} differ in dtype"
    if first.weight.device != second.weight.device:
        return f"{candidate.linear1} and {candidate.linear2} are on different devices"
    if _is_known(parent):  # a whole of its own
        return None
    row = {candidate.linear1, candidate.activation, candidate.linear2, *candidate.dropouts}
    return why_taken_apart(parent, row, owners)


def fuse(model: nn.Module, *, recompute: bool = False, backend: str | None = None) -> Report:
    """Fuses, in place, every ``Linear -> ReLU -> Linear`` that can be proven to be one.

    Proven are: neighbours in an ``nn.Sequential``; the feed-forwards of
    ``nn.TransformerEncoderLayer`` and ``nn.TransformerDecoderLayer``, and of ``transformers``' OPT
    and T5; and chains of attributes in a forward that ``torch.fx`` can trace and whose source has
    no branches, loops, contexts or side effects and calls nothing but modules and torch. What runs
    a chain must be called whole by the modules around it, as far as their source shows; where there
    is none to be read it is left. Dropout after the ReLU is allowed: the layers run fused while it
    is off (``p=0``, or in eval), and one by one otherwise. Layers with hooks, of a subclass of
    ``nn.Linear``, or shared between places are left as they are, and so is a ReLU that is a
    function in a forward: nothing could take its place.

    Only the forwards of modules are looked at: code that calls a fused layer by itself
    (``model[0](x)``) gets the result of both.

    Parameters, modules and state-dict keys stay the same; :func:`unfuse` undoes it.

    Args:
        model: any module; itself unchanged where nothing can be fused.
        recompute, backend: as for :func:`functional.two_layer`.

    Returns:
        A list of the sites with what was decided and why; prints as a line for each.

    Raises:
        TypeError: ``model`` is no ``nn.Module``.

    Example:
        >>> from torch import nn
        >>> from twolayer_kernels import fuse
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> print(fuse(model))
        0, 1, 2: fused (neighbours in a Sequential)
        >>> list(model.state_dict())
        ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"fuse: model must be a torch.nn.Module, got {type(model).__name__}")
    places = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
    owners = owners_in(model)
    report = Report()
    for prefix, parent in list(model.named_modules()):
        for candidate in _candidates(parent):
            names = (candidate.linear1, candidate.activation, candidate.linear2)
            name = ", ".join(f"{prefix}.{n}" if prefix else n for n in names)
            problem = _why_not(candidate, places, owners)
            if problem is None:
                _fuse_one(candidate, {"recompute": recompute, "backend": backend})
            report.append(Site(name, problem is None, problem or _proof(candidate)))
    return report


def _proof(candidate: _Candidate) -> str:
    parent = candidate.parent
    if _runs_in_a_row(parent):
        how = "neighbours in a Sequential"
    elif _is_known(parent):
        how = f"the feed-forward of {type(parent).__name__}"
    else:
        how = f"in a row in the forward of {type(parent).__name__}"
    dropouts = [getattr(parent, name) for name in candidate.dropouts]
    if any(d.p > 0 for d in dropouts):
        how += "; runs fused while dropout is off"
    return how


def _fuse_one(candidate: _Candidate, options: dict[str, Any]) -> None:
    parent = candidate.parent
    activation = getattr(parent, candidate.activation)
    chain = Chain(
        parent,
        (candidate.linear1, candidate.activation, candidate.linear2),
        candidate.dropouts,
        options,
        candidate.method,
    )
    linear1, linear2 = chain.linear1, chain.linear2
    # Past __setattr__, which would make the chain's modules submodules of each other.
    linear1.__dict__["_chain"] = linear2.__dict__["_chain"] = chain
    linear1.__class__, linear2.__class__ = FusedFirst, FusedSecond
    stand_in = chain.activation = FusedActivation(chain, activation)
    if isinstance(activation, nn.Module):
        stand_in.train(activation.training)
        parent._modules[candidate.activation] = stand_in
    else:  # so that another function can be assigned
        parent.__dict__[candidate.activation] = stand_in


def unfuse(model: nn.Module) -> int:
    """Undoes :func:`fuse`, in place.

    Returns:
        How many sites were fused.

    Raises:
        TypeError: ``model`` is no ``nn.Module``.

    Example:
        >>> from torch import nn
        >>> from twolayer_kernels import fuse, unfuse
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> unfuse(model), len(fuse(model)), unfuse(model)
        (0, 1, 1)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"unfuse: model must be a torch.nn.Module, got {type(model).__name__}")
    count = 0
    for parent in list(model.modules()):
        for name, child in [*parent._modules.items(), *vars(parent).items()]:
            if isinstance(child, FusedActivation):
                _unfuse_one(parent, name, child)
                count += 1
    return count


def _unfuse_one(parent: nn.Module, name: str, stand_in: FusedActivation) -> None:
    chain, original = stand_in._chain, stand_in.original
    for linear in (chain.linear1, chain.linear2):
        if linear is Replaced or "_chain" not in linear.__dict__:  # undone at another place
            continue
        if parametrize.is_parametrized(linear):  # by a class made for this layer alone
            type(linear).__bases__ = (nn.Linear,)
            type(linear).__name__ = f"Parametrized{nn.Linear.__name__}"
        else:
            linear.__class__ = nn.Linear
        del linear.__dict__["_chain"]
    if isinstance(original, nn.Module):
        original.train(stand_in.training)
        vars(original)["inplace"] = stand_in.inplace
        for name_of_hooks, kept in vars(stand_in).items():
            if "_hook" in name_of_hooks and kept:  # put there since; their handles know this dict
                vars(original)[name_of_hooks] = kept
        if "forward" in vars(stand_in):
            vars(original)["forward"] = vars(stand_in)["forward"]
        parent._modules[name] = original
    else:
        parent.__dict__[name] = original
