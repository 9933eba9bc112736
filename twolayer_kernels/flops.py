"""The floating-point operations of the registered operators, as torch counts those of its products.

``torch.utils.flop_counter`` loads triton, so the formulas are handed over when somebody loads it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from . import ops

_COUNTER = "torch.utils.flop_counter"


def _product(rows: int, inner: int, columns: int) -> Any:
    return 2 * rows * inner * columns


def _two_layer_flops(x: Any, w1: Any, w2: Any, *_: Any, **__: Any) -> Any:
    (batch, in_features), (out_features, hidden_features) = x, w2
    return _product(batch, in_features, hidden_features) + _product(
        batch, hidden_features, out_features
    )


def _two_layer_backward_flops(
    grad_y: Any, x: Any, w1: Any, w2: Any, b1: Any, a: Any, needs: Any, *_: Any, **__: Any
) -> Any:
    batch, (out_features, hidden_features) = x[0], w2
    first = _product(batch, x[1], hidden_features)
    second = _product(batch, hidden_features, out_features)
    dh_is_needed = needs[0] or needs[1] or needs[3]
    again = a is None and (dh_is_needed or needs[2])
    return first * (needs[0] + needs[1] + again) + second * (dh_is_needed + needs[2])


def _linear_relu_flops(x: Any, w: Any, *_: Any, **__: Any) -> Any:
    return _product(x[0], x[1], w[0])


def _linear_relu_backward_flops(
    grad_a: Any, x: Any, w: Any, a: Any, needs: Any, *_: Any, **__: Any
) -> Any:
    return _product(x[0], x[1], w[0]) * (needs[0] + needs[1])


def _hand_over(counter: Any) -> None:
    for operator, formula in (
        (ops.two_layer, _two_layer_flops),
        (ops.two_layer_backward, _two_layer_backward_flops),
        (ops.linear_relu, _linear_relu_flops),
        (ops.linear_relu_backward, _linear_relu_backward_flops),
    ):
        counter.register_flop_formula(operator)(formula)


class _ThenHandOver(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _hand_over(module)


class _WhenLoaded(MetaPathFinder):
    """Finds torch's counter as Python would, once, and hands the formulas over."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenHandOver(spec.loader)
        return spec


def register() -> None:
    """Makes the formulas known to ``torch.utils.flop_counter``, now or when it is loaded."""
    if _COUNTER in sys.modules:
        _hand_over(sys.modules[_COUNTER])
    else:
        sys.meta_path.insert(0, _WhenLoaded())
