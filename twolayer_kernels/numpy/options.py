"""What ``fit`` on arrays may be told: the optimizers' and losses' options, and their checks."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np

from .. import checks
from ..engine import Samples, overlaps_itself, share_memory
from .network import CHECKS, Array, regular
from .running import State

# The options of torch.optim's optimizers and their defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {
        "lr": 1e-3,
        "momentum": 0.0,
        "dampening": 0.0,
        "weight_decay": 0.0,
        "nesterov": False,
        "maximize": False,
    },
    "adam": {
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "amsgrad": False,
        "maximize": False,
    },
    "rmsprop": {
        "lr": 1e-2,
        "alpha": 0.99,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "momentum": 0.0,
        "centered": False,
        "maximize": False,
    },
}
OPTIONS["adamw"] = {**OPTIONS["adam"], "weight_decay": 1e-2}
LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "mse_sum": ("squared_error", {"mean": False}),
    "mse_mean": ("squared_error", {"mean": True}),
    "cross_entropy": ("cross_entropy", {"mean": True}),
    "bce_with_logits": ("bce_with_logits", {"mean": True}),
}


def check_known(name: str, value: Any, known: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"fit: {name} must be a str, got {type(value).__name__}")
    if value not in known:
        raise ValueError(f"fit: {name} must be one of {', '.join(known)}, got {value!r}")


def _reals(name: str, given: Any, dtype: Any) -> Array:
    """An array of real numbers, whatever holds them."""
    if isinstance(given, CHECKS.refused):
        raise TypeError(f"fit: {name} must be plain numbers, got {type(given).__name__}")
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"fit: {name} must hold real numbers, got {given!r}")
    return regular(array.astype(dtype, copy=False))


def samples_of(
    loss: str, ignored: int, x: Array, y: Array, weight: Array | None, outputs: int
) -> Samples:
    if x.ndim != 2:
        raise ValueError(f"fit: x must have shape (samples, in_features), got {x.shape}")
    CHECKS.kind("fit", "y", y)
    if len(y) != len(x) if y.ndim else True:
        raise ValueError(
            f"fit: x and y must have as many rows, got {len(x)} and {len(y) if y.ndim else 'none'}"
        )
    if len(x) == 0:
        raise ValueError("fit: x must hold samples, got none")
    if weight is not None:
        weight = _reals("sample_weight", weight, x.dtype)
        if weight.shape != (len(x),):
            raise ValueError(f"fit: sample_weight must have shape ({len(x)},), got {weight.shape}")
    if loss != "cross_entropy":
        CHECKS.like("fit", "y", y, x, (len(x), outputs))
        return Samples(regular(x), regular(y), None, weight)
    if y.dtype != np.int64 or y.ndim != 1:
        raise TypeError(
            f"fit: y must hold classes, ({len(x)},) of int64, got {y.shape} of {y.dtype}"
        )
    checks.check_classes("fit", y, outputs, ignored)
    return Samples(regular(x), None, np.ascontiguousarray(regular(y)), weight)


# What a loss may be told besides.
_LOSS_OPTIONS: dict[str, tuple[str, ...]] = {
    "mse_sum": (),
    "mse_mean": (),
    "cross_entropy": ("class_weight", "label_smoothing", "ignore_index", "mean"),
    "bce_with_logits": ("pos_weight", "mean"),
}
_FLAGS = ("nesterov", "maximize", "amsgrad", "centered")


def check_options(optimizer: str, options: dict[str, Any]) -> None:
    """As torch.optim's constructors do."""
    for name, value in options.items():
        if name in _FLAGS:
            if not isinstance(value, bool | np.bool_):
                raise TypeError(f"fit: {name} must be a bool, got {value!r}")
            continue
        if name == "betas" and (not isinstance(value, tuple | list) or len(value) != 2):
            raise TypeError(f"fit: betas must be two numbers, got {value!r}")
        for number in value if name == "betas" else (value,):
            if not checks.is_real(number):
                raise TypeError(f"fit: {name} must be a number, got {number!r}")
            least = -math.inf if name == "dampening" else 0.0
            if not least <= float(number) or (name == "betas" and float(number) >= 1):
                allowed = "from 0 to below 1" if name == "betas" else "at least 0"
                raise ValueError(f"fit: {name} must be {allowed}, got {number}")
    if options.get("nesterov") and (options["momentum"] <= 0 or options["dampening"] != 0):
        raise ValueError("fit: nesterov needs a momentum above 0 and no dampening")


def told_loss(
    loss: str, given: Any, penalty: float, outputs: int, dtype: Any
) -> tuple[str, dict[str, Any]]:
    """The loss by the engine's name for it, and all that it is told."""
    if not isinstance(given, dict):
        raise TypeError(f"fit: loss_options must be a dict, got {type(given).__name__}")
    unknown = [name for name in given if name not in _LOSS_OPTIONS[loss]]
    if unknown:
        known = ", ".join(_LOSS_OPTIONS[loss]) or "none"
        raise TypeError(f"fit: {loss} has no option {', '.join(unknown)}; it has {known}")
    checks.check_penalty("fit", penalty)
    checks.check_smoothing("fit", given.get("label_smoothing", 0.0))
    name, defaults = LOSSES[loss]
    told = {"ignore_index": -100, **defaults, **given, "penalty": penalty}
    ignored, mean = told["ignore_index"], told.get("mean", False)
    if isinstance(ignored, bool) or not isinstance(ignored, Integral):
        raise TypeError(f"fit: ignore_index must be an int, got {ignored!r}")
    if not isinstance(mean, bool | np.bool_):
        raise TypeError(f"fit: mean must be a bool, got {mean!r}")
    for option in ("class_weight", "pos_weight"):
        if told.get(option) is not None:
            told[option] = _for_outputs(option, told[option], outputs, dtype)
    return name, told


def _for_outputs(name: str, given: Any, outputs: int, dtype: Any) -> Array:
    """A number for each output; as in torch, one positive weight may be all outputs'."""
    weights = _reals(name, given, dtype)
    if name == "pos_weight" and weights.size == 1 and weights.ndim < 2:
        weights = np.full(outputs, weights.reshape(()), dtype)
    if weights.shape != (outputs,):
        raise ValueError(f"fit: {name} must have shape ({outputs},), got {weights.shape}")
    return weights


def check_memory(samples: Samples, parameters: dict[str, Array | None], state: State) -> None:
    """What is trained shares memory with nothing that is read, nor with itself."""
    kept = {  # those that cannot be written are carried on in copies
        f"state[{key!r}]": array
        for key, array in state.items()
        if key != "step" and array.flags.writeable
    }
    seen = {"x": samples.x, "y": samples.target, "sample_weight": samples.weight}
    for name, array in {**parameters, **kept}.items():
        if array is None:
            continue
        if overlaps_itself(array.shape, tuple(s // array.itemsize for s in array.strides)):
            raise ValueError(f"fit: {name} holds an element twice")
        for other, another in seen.items():
            if another is not None and share_memory(array, another):
                raise ValueError(f"fit: {other} and {name} share memory")
        seen[name] = array
