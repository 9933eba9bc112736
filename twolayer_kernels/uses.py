"""What the code of a model does with one of its modules, as far as its source shows."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from .reading import path_of, tree_of

# The modules that hold a module, and under which names, by its identity.
Owners = dict[int, list[tuple[nn.Module, str]]]

# What may get a module and looks at nothing in it.
_INCURIOUS = {"super", "isinstance", "type", "id", "hasattr", "len", "checkpoint"}
# Of nn.Module: what hands out the modules below it.
_WAYS_INSIDE = {
    *("children", "named_children", "modules", "named_modules", "get_submodule"),
    *("apply", "_modules", "__dict__"),
}


def owners_in(model: nn.Module) -> Owners:
    owners: Owners = {}
    for owner in model.modules():
        for name, child in owner._modules.items():
            owners.setdefault(id(child), []).append((owner, name))
    return owners


def _is_of_torch(kind: type) -> bool:
    return kind.__module__.split(".")[0] == "torch"


def _holds(module: nn.Module) -> bool:
    """Whether it is a container whose elements are as exposed as it is itself."""
    if isinstance(module, nn.Sequential):
        return type(module).forward is nn.Sequential.forward and "forward" not in module.__dict__
    return isinstance(module, nn.ModuleList | nn.ModuleDict)


def _above(target: nn.Module, owners: Owners) -> tuple[list[nn.Module], set[int]]:
    """All modules above one, and the identities of the containers around it."""
    found: dict[int, nn.Module] = {}
    around = {id(target)}
    left = [target]
    while left:
        below = left.pop()
        for owner, _ in owners.get(id(below), ()):
            if id(below) in around and _holds(owner):
                around.add(id(owner))
            if id(owner) not in found:
                found[id(owner)] = owner
                left.append(owner)
    return list(found.values()), around - {id(target)}


class _Chain(NamedTuple):
    """What must not be taken apart."""

    target: nn.Module
    layers: set[str]
    around: set[int]  # the containers around it, and
    close: set[int]  # those with it and the modules that hold any of them, by identity


def _resolved(module: nn.Module, names: list[str]) -> list[nn.Module]:
    """The modules along a chain of attributes, as far as these are modules."""
    found = [module]
    for name in names:
        child = found[-1]._modules.get(name)
        if child is None:
            break
        found.append(child)
    return found


class _Code:
    """One method, and where each of its nodes stands."""

    def __init__(self, tree: ast.FunctionDef) -> None:
        self.own = tree.args.args[0].arg
        self.nodes = list(ast.walk(tree))
        self.parent = {id(c): n for n in self.nodes for c in ast.iter_child_nodes(n)}

    def parent_of(self, node: ast.AST) -> ast.AST | None:
        return self.parent.get(id(node))

    def is_called(self, node: ast.AST) -> bool:
        call = self.parent_of(node)
        return isinstance(call, ast.Call) and call.func is node

    def chains(self) -> Iterator[tuple[ast.expr, list[str]]]:
        """Each longest ``self.a.b`` that is read, and ``self`` by itself."""
        for node in self.nodes:
            if not isinstance(node, ast.Attribute | ast.Name) or not isinstance(node.ctx, ast.Load):
                continue
            path = path_of(node)
            if path is None or path[0] != self.own:
                continue
            if not isinstance(self.parent_of(node), ast.Attribute):
                yield node, path[1:]

    def is_looked_at_only(self, node: ast.AST) -> bool:
        """Whether it is an argument of a function that does nothing with it."""
        call = self.parent_of(node)
        return (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id in _INCURIOUS
        )

    def calls_elements(self, node: ast.expr) -> bool:
        """Whether a container's elements are called, by number or one by one, and no more."""
        parent = self.parent_of(node)
        if isinstance(parent, ast.Subscript) and parent.value is node:
            used = self.is_called(parent) or self.is_looked_at_only(parent)
            return used and not isinstance(parent.slice, ast.Slice)
        wrapped: list[ast.expr] = [node]
        if isinstance(parent, ast.Call):  # enumerate(self.blocks), self.blocks.values()
            name = parent.func.id if isinstance(parent.func, ast.Name) else ""
            if parent.func is not node and name not in ("enumerate", "zip", "reversed"):
                return False
            wrapped.append(parent)
        loop = self.parent_of(wrapped[-1])
        if not isinstance(loop, ast.For | ast.comprehension) or loop.iter is not wrapped[-1]:
            return False
        elements = {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)}
        reads = [
            node
            for node in self.nodes
            if isinstance(node, ast.Name) and node.id in elements and isinstance(node.ctx, ast.Load)
        ]
        whole = {id(n) for n in reads if self.is_called(n) or self.is_looked_at_only(n)}
        modules = {n.id for n in reads if id(n) in whole}
        # Those that are no modules (numbers, keys, other inputs) may be used at will.
        return bool(modules) and all(id(n) in whole for n in reads if n.id in modules)


def _function(attribute: Any) -> Any:
    """The code behind an attribute of a class, ``None`` where it has none of Python's."""
    if isinstance(attribute, property):
        attribute = attribute.fget
    attribute = getattr(attribute, "func", attribute)  # a cached property's
    function = inspect.unwrap(attribute) if callable(attribute) else None
    return function if inspect.isfunction(function) else None


def why_taken_apart(target: nn.Module, layers: set[str], owners: Owners) -> str | None:
    """What code above a module may do with its layers but run all of it, or ``None``.

    Code is believed not to look into a module that it hands on whole, but for the one that holds
    the target.

    Args:
        target: what runs the layers one after the other in its forward.
        layers: their names in it.
        owners: of the whole model.
    """
    above, around = _above(target, owners)
    held = {id(target)} | around
    close = held | {id(owner) for m in held for owner, _ in owners.get(m, ())}
    chain = _Chain(target, layers, around, close)
    left: list[tuple[nn.Module, str]] = [(module, "forward") for module in above]
    seen: set[tuple[int, str]] = set()
    while left:
        module, method = left.pop()
        if (id(module), method) in seen:
            continue
        seen.add((id(module), method))
        if method == "forward" and "forward" in module.__dict__:
            return f"{type(module).__name__} has a forward put on the object"
        for kind in type(module).__mro__:
            function = _function(vars(kind).get(method))
            if function is None or _is_of_torch(kind):
                continue
            tree = tree_of(function)
            if tree is None:
                return f"the source of {method} of {type(module).__name__} is not to be had"
            why = _why_not(_Code(tree), module, chain, left)
            if why is not None:
                return f"the {method} of {type(module).__name__} {why}"
    return None


def _why_not(
    code: _Code, module: nn.Module, chain: _Chain, left: list[tuple[nn.Module, str]]
) -> str | None:
    """One method's ``why_taken_apart``; the methods that it calls are put on the list."""
    for node, names in code.chains():
        if not names:
            if id(module) in chain.close and not code.is_looked_at_only(node):
                return "hands itself on"
            continue
        found = _resolved(module, names)
        last, rest = found[-1], names[len(found) - 1 :]
        more = f"does more with {'.'.join(names[: len(found) - 1])} than call it"
        if any(m is chain.target for m in found[:-1]):
            through = names[[m is chain.target for m in found].index(True)]
            if through in chain.layers or isinstance(chain.target, nn.Sequential):
                return more
        if rest:
            if rest[0] in _WAYS_INSIDE and id(last) in chain.close:
                return f"looks inside by {rest[0]}"
            by_elements = rest[0] in ("values", "items") and code.calls_elements(node)
            if id(last) in chain.around and not isinstance(last, nn.Sequential) and not by_elements:
                return more
            left.append((last, rest[0]))
        elif code.is_called(node) or code.is_looked_at_only(node):
            continue
        elif id(last) in chain.around and not isinstance(last, nn.Sequential):
            if not code.calls_elements(node):
                return more
        elif id(last) in chain.close:
            return more
    return None
