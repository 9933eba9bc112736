"""What the source of a forward shows and its trace does not: branches, side effects, other uses."""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_BRANCHES = (
    ast.If, ast.IfExp, ast.BoolOp, ast.While, ast.For, ast.AsyncFor, ast.Match, ast.Try,
    ast.comprehension,
)  # fmt: skip
_CONTEXTS = (ast.With, ast.AsyncWith)
_HIDDEN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.Yield, ast.YieldFrom, ast.Await)
_HARMLESS = {len, int, float, tuple, list}


def _tree(function: Any) -> ast.FunctionDef | None:
    """The function as it is written; ``None`` where its source is not to be had."""
    try:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    (found,) = parsed.body
    return found if isinstance(found, ast.FunctionDef) and found.args.args else None


def _path(node: ast.expr) -> list[str] | None:
    """``["self", "net", "head"]`` of ``self.net.head``; ``None`` for what is no such chain."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else None


def _is_torchs(function: Any) -> bool:
    home = getattr(function, "__module__", None) or ""
    name = getattr(function, "__name__", "")
    return home.split(".")[0] == "torch" or getattr(torch, name, None) is function


def _why_not_called(call: ast.Call, own: str, module: nn.Module, function: Any) -> str | None:
    """What forbids to believe the trace of this call, or ``None``.

    Followed are modules of this one, methods of values, and torch's functions.
    """
    path = _path(call.func)
    if path is None:
        return None if isinstance(call.func, ast.Attribute) else "calls what it has looked up"
    root, *rest = path
    if root == own:
        found: Any = module
        for name in rest:
            found = getattr(found, name, None)
        return None if isinstance(found, nn.Module) else f"calls {'.'.join(path)}"
    if root in function.__code__.co_varnames:
        return None if rest else f"calls {root}"
    found = function.__globals__.get(root, getattr(builtins, root, None))
    for name in rest:
        found = getattr(found, name, None)
    known = _is_torchs(found) or any(found is harmless for harmless in _HARMLESS)
    return None if known else f"calls {'.'.join(path)}"


def _why_not_stated(node: ast.AST) -> str | None:
    if isinstance(node, _BRANCHES):
        return "branches or loops"
    if isinstance(node, _CONTEXTS):
        return "has a with statement"
    if isinstance(node, _HIDDEN):
        return "has code of its own inside"
    if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return "keeps something"
    if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
        return "calls something for its side effect"
    return None


def why_unclear(module: nn.Module) -> str | None:
    """Why the trace of a forward does not say what every later call does, or ``None``.

    It branches, loops, keeps or changes something, or calls code that is not looked into.
    """
    if "forward" in module.__dict__:
        return "its forward is put on the object"
    function: Any = type(module).forward
    tree = _tree(function)
    if tree is None:
        return "the source of its forward is not to be had"
    if tree.decorator_list or hasattr(function, "__wrapped__"):
        return "its forward is decorated"
    own = tree.args.args[0].arg
    for node in (n for statement in tree.body for n in ast.walk(statement)):
        why = _why_not_stated(node)
        if why is None and isinstance(node, ast.Call):
            why = _why_not_called(node, own, module, function)
        if why is not None:
            line = getattr(node, "lineno", 0)
            return f"its forward {why}" + (f" (line {line} of it)" if line else "")
    return None


def _trees_of(kind: type) -> Iterator[ast.FunctionDef]:
    """A class's forward, and the methods that it calls, and so on."""
    left, seen = ["forward"], set()
    while left:
        name = left.pop()
        function = inspect.getattr_static(kind, name, None)
        tree = None if name in seen else _tree(function)
        seen.add(name)
        if tree is None:
            continue
        yield tree
        own = tree.args.args[0].arg
        paths = (_path(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
        left += [path[1] for path in paths if path is not None and path[0] == own]


def takes_apart(owner: nn.Module, child: str) -> bool:
    """Whether a module's forward does anything with this child but call it (``self.net[2](x)``)."""
    kind: type = type(owner)
    if kind.__module__.split(".")[0] == "torch":
        return False
    for tree in _trees_of(kind):
        own = tree.args.args[0].arg
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            whole = isinstance(node, ast.Attribute) and _path(node) == [own, child]
            if whole and id(node) not in called:
                return True
    return False
