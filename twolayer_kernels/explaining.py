"""``explain``: how each fused layer of a model is computed, by which kernel, and why."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from . import chains, dispatch, functional, modules, transparency
from .transparency import Way


def _widths(site: Any) -> tuple[int, int, int] | None:
    """Input, hidden and output features of a fused module of two layers."""
    if hasattr(site, "_chain"):
        return site.in_features, site.out_features, site._chain.linear2.out_features
    if hasattr(site, "linear2"):
        return site.in_features, site.hidden_features, site.out_features
    return None


def _why_apart(site: Any) -> str | None:
    """Why the layers of a site would be called one after the other, if they would."""
    if hasattr(site, "_chain"):
        return site._chain.why_apart()  # type: ignore[no-any-return]
    if isinstance(site, modules.FusedTwoLayer):
        return modules.why_called_apart(site)
    return None


def _tensors(site: Any) -> list[Any]:
    """The parameters that a fused call would take, a parametrization's own in their place."""
    if site is None:
        return []
    second = site._chain.linear2 if hasattr(site, "_chain") else None
    return [*site.parameters(), *(() if second is None else second.parameters())]


def _is_looked_into(site: Any, x: Tensor, backend: str | None) -> bool:
    """Whether whoever looks at the call sees torch's own operations in the place of an operator."""
    recompute = getattr(site, "recompute", False)
    return not recompute and dispatch.is_certainly_torchs_own(
        x.device.type, x.device.index, x.dtype, backend
    )


def _line(name: str, site: Any, x: Tensor) -> str:
    backend = None if site is None else site.backend
    reason = _why_apart(site)
    if reason is not None:
        return f"{name}: its layers one after the other ({reason})"
    way, reason = transparency.way_of_call(x, *_tensors(site), backend=backend)
    if way is Way.OPERATIONS:
        return f"{name}: torch's own operations ({reason})"
    choice = dispatch.choose(x.device.type, x.dtype, backend)
    widths = _widths(site)
    if widths is not None and backend is None and x.device.type == "cuda":
        choice = dispatch.choose_for_cuda(x, *widths)
    kernel = choice.backend.__name__.rpartition(".")[2]
    sizes = None if widths is None else (x.shape[:-1].numel(), *widths)
    detail = getattr(choice.backend, "describe", lambda dtype, sizes: "")(x.dtype, sizes)
    operator = ""
    if way is Way.OPERATORS and not _is_looked_into(site, x, backend):
        operator = f", as a registered operator: {reason}"
    return f"{name}: {kernel}{detail} ({choice.reason}{operator})"


def _explain_estimator(model_or_op: Any, x: Any) -> str | None:
    # Nobody has an estimator of ours who has not loaded their module.
    estimators = sys.modules.get(f"{__package__}.sklearn")
    if estimators is None or not isinstance(model_or_op, estimators.FusedTraining):
        return None
    engine = estimators.engine_for(model_or_op, x)
    return f"{type(model_or_op).__name__}: {engine.name} ({engine.reason})"


def explain(model_or_op: Any, x: Any) -> str:
    """How ``model_or_op`` would be computed on ``x`` now, and why: a line for each fused layer.

    That is the backend whose kernels run; or the layers one after the other, torch's own operations
    or a registered operator, with what it is that may see the call.

    Args:
        model_or_op: a module that is or contains ``FusedTwoLayer`` or ``FusedLinearReLU``, one of
            the functions of :mod:`twolayer_kernels.functional`, or an estimator of
            :mod:`twolayer_kernels.sklearn`: what trained it, else what would.
        x: the input, for its device, dtype and shape: a tensor, or an estimator's data.

    Raises:
        TypeError: ``model_or_op`` is none of these, or ``x`` is no tensor.

    Example:
        >>> import torch
        >>> from twolayer_kernels import FusedTwoLayer, explain
        >>> explain(FusedTwoLayer(3, 5, 2, backend="torch"), torch.randn(7, 3))
        'FusedTwoLayer: torch (named by the caller)'
    """
    estimator = _explain_estimator(model_or_op, x)
    if estimator is not None:
        return estimator
    if not isinstance(x, Tensor):
        raise TypeError(f"explain: x must be a torch.Tensor, got {type(x).__name__}")
    fused = (modules.FusedTwoLayer, modules.FusedLinearReLU, chains.FusedFirst)
    if model_or_op in (functional.two_layer, functional.linear_relu):
        sites: list[tuple[str, Any]] = [(model_or_op.__name__, None)]
    elif isinstance(model_or_op, torch.nn.Module):
        sites = [
            (name or type(module).__name__, module)
            for name, module in model_or_op.named_modules()
            if isinstance(module, fused)
        ]
    else:
        raise TypeError(
            "explain: model_or_op must be a torch.nn.Module, a function of"
            " twolayer_kernels.functional or an estimator of twolayer_kernels.sklearn,"
            f" got {type(model_or_op).__name__}"
        )
    if not sites:
        return "no fused layer in this model: every layer runs as it is written"
    return "\n".join(_line(name, site, x) for name, site in sites)
