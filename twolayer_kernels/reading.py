"""What the source of a forward shows and its trace does not: branches, side effects, choices."""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from typing import Any

import torch
from torch import nn

_BRANCHES = (
    ast.If, ast.IfExp, ast.BoolOp, ast.While, ast.For, ast.AsyncFor, ast.Match, ast.Try,
    ast.comprehension,
)  # fmt: skip
_CONTEXTS = (ast.With, ast.AsyncWith)
_IMPORTS = (ast.Import, ast.ImportFrom)
_LITERALS = (ast.Tuple, ast.List, ast.Set, ast.Dict)
_HIDDEN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.Yield, ast.YieldFrom, ast.Await)
_HARMLESS = {len, int, float, tuple, list}


def tree_of(function: Any) -> ast.FunctionDef | None:
    """The function as it is written; ``None`` where its source is not to be had."""
    try:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    (found,) = parsed.body
    return found if isinstance(found, ast.FunctionDef) and found.args.args else None


def path_of(node: ast.expr) -> list[str] | None:
    """``["self", "net", "head"]`` of ``self.net.head``; ``None`` for what is no such chain."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else None


def _is_torchs(function: Any) -> bool:
    if function is None:  # not found: a variable of a function around, or not there yet
        return False
    home = getattr(function, "__module__", None) or ""
    name = getattr(function, "__name__", "")
    return home.split(".")[0] == "torch" or getattr(torch, name, None) is function


def _child(module: nn.Module, names: list[str]) -> nn.Module | None:
    """The module at the end of a chain of attributes that are all modules, no properties."""
    found: nn.Module | None = module
    for name in names:
        found = None if found is None else found._modules.get(name)
    return found


def _why_not_handed(node: ast.expr, own: str, module: nn.Module, called: set[int]) -> str | None:
    """What forbids this mention of the module itself, or of one of its own."""
    path = path_of(node)
    if path is None or path[0] != own or id(node) in called:
        return None
    if len(path) == 1:
        return "hands itself on"
    if _child(module, path[1:]) is not None:
        return f"does more with {'.'.join(path)} than call it"
    return None


def _why_not_called(call: ast.Call, own: str, module: nn.Module, function: Any) -> str | None:
    """What forbids to believe the trace of this call, or ``None``.

    Followed are modules of this one, methods of values, and torch's functions.
    """
    path = path_of(call.func)
    if path is None:
        of_value = isinstance(call.func, ast.Attribute) and not isinstance(
            call.func.value, _LITERALS
        )
        return None if of_value else "calls what it has looked up"
    root, *rest = path
    if root == own:
        return None if _child(module, rest) is not None else f"calls {'.'.join(path)}"
    if root in function.__code__.co_varnames:
        return None if rest else f"calls {root}"
    found: Any = function.__globals__.get(root, getattr(builtins, root, None))
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
    if isinstance(node, _IMPORTS):
        return "imports something"
    if isinstance(node, ast.Subscript):
        parts = ast.walk(node.slice)
        if any(isinstance(part, ast.Name | ast.Attribute | ast.Call) for part in parts):
            return "selects by what may change"
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
    tree = tree_of(function)
    if tree is None:
        return "the source of its forward is not to be had"
    if tree.decorator_list or hasattr(function, "__wrapped__"):
        return "its forward is decorated"
    own = tree.args.args[0].arg
    nodes = [n for statement in tree.body for n in ast.walk(statement)]
    # What is called, and what is only a part of a longer chain of attributes.
    called = {id(n.func) for n in nodes if isinstance(n, ast.Call)}
    called |= {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}
    for node in nodes:
        why = _why_not_stated(node)
        if why is None and isinstance(node, ast.Call):
            why = _why_not_called(node, own, module, function)
        if why is None and isinstance(node, ast.Attribute | ast.Name):
            why = _why_not_handed(node, own, module, called)
        if why is not None:
            line = getattr(node, "lineno", 0)
            return f"its forward {why}" + (f" (line {line} of it)" if line else "")
    return None
