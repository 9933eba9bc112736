"""``explain``: which kernel runs for each fused layer of a model, and why."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from . import dispatch, functional, fusing, modules


def _widths(site: Any) -> tuple[int, int, int] | None:
    """Input, hidden and output features of a fused module of two layers."""
    if hasattr(site, "_chain"):
        return site.in_features, site.out_features, site._chain.linear2.out_features
    if hasattr(site, "linear2"):
        return site.in_features, site.hidden_features, site.out_features
    return None


def _explain_estimator(model_or_op: Any, x: Any) -> str | None:
    # Nobody has an estimator of ours who has not loaded their module.
    estimators = sys.modules.get(f"{__package__}.sklearn")
    if estimators is None or not isinstance(model_or_op, estimators.FusedTraining):
        return None
    engine = estimators.engine_for(model_or_op, x)
    return f"{type(model_or_op).__name__}: {engine.name} ({engine.reason})"


def explain(model_or_op: Any, x: Any) -> str:
    """Which backend runs ``model_or_op`` on ``x``, and why: a line for each fused layer in it.

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
    fused = (modules.FusedTwoLayer, modules.FusedLinearReLU, fusing.FusedFirst)
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
    lines = []
    for name, site in sites:
        choice = dispatch.choose(x.device.type, x.dtype, None if site is None else site.backend)
        widths = _widths(site)
        if widths is not None and site.backend is None and x.device.type == "cuda":
            choice = dispatch.choose_for_cuda(x, *widths)
        kernel = choice.backend.__name__.rpartition(".")[2]
        sizes = None if widths is None else (x.shape[:-1].numel(), *widths)
        detail = getattr(choice.backend, "describe", lambda sizes: "")(sizes)
        lines.append(f"{name}: {kernel}{detail} ({choice.reason})")
    return "\n".join(lines)
