"""Samples and targets as callers have them: tensors, arrays, files in memory, loaders."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import checks
from ..engine import Draw, Samples
from .losses import Loss
from .memory import extent, share_memory
from .networks import PARAMETERS, WRITE_THE_LOOP, Network

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float16}


def _check_tensor(name: str, t: Tensor) -> None:
    if t.layout is not torch.strided or t.device.type != "cpu" or t.is_nested:
        layout = "a nested one" if t.is_nested else t.layout
        raise ValueError(
            f"fit: {name} must be a strided tensor on the cpu, got {layout} on {t.device}"
        )


def _values(name: str, values: Any, dtype: torch.dtype) -> Any:
    """A tensor or array of this dtype, in memory that the engine can read."""
    if isinstance(values, Tensor):
        _check_tensor(name, values)
        if values.dtype != dtype:
            raise TypeError(f"fit: {name} must have the model's dtype {dtype}, got {values.dtype}")
        return values.detach().resolve_neg()
    if isinstance(values, np.ndarray):
        known = dtype in _NUMPY and values.dtype == _NUMPY[dtype]  # a dtype equals None, float64
        if not known or not values.dtype.isnative:
            raise TypeError(f"fit: {name} must have the model's dtype {dtype}, got {values.dtype}")
        regular = all(stride % values.itemsize == 0 for stride in values.strides)
        return values if regular and values.flags.aligned else values.copy()
    raise TypeError(
        f"fit: {name} must be a torch.Tensor or a numpy.ndarray, got {type(values).__name__}"
    )


def _classes(y: Any, loss: Loss, outputs: int) -> Any:
    if isinstance(y, Tensor):
        _check_tensor("y", y)
        y = y.detach().numpy() if y.dtype == torch.int64 else y
    if not isinstance(y, np.ndarray) or y.dtype != np.int64:
        got = getattr(y, "dtype", type(y).__name__)
        raise TypeError(f"fit: y must hold classes as int64 for this loss, got {got}")
    if y.ndim != 1:
        raise ValueError(f"fit: y must have shape (samples,) for this loss, got {tuple(y.shape)}")
    checks.check_classes("fit", y, outputs, loss.options["ignore_index"])
    return np.ascontiguousarray(y)


def _weight(weight: Any, dtype: torch.dtype) -> Tensor:
    """Of the samples: one number each."""
    if isinstance(weight, Tensor):
        _check_tensor("sample_weight", weight)
        found = weight.detach().resolve_neg()
    else:
        native = np.asarray(weight).dtype.newbyteorder("=")
        found = torch.from_numpy(np.array(weight, dtype=native))
    if found.dtype.is_complex:
        raise TypeError(f"fit: sample_weight must be real, got {found.dtype}")
    return found.to(dtype)


def samples_of(network: Network, loss: Loss, x: Any, y: Any, weight: Any) -> Samples:
    """The engine's samples.

    Raises:
        TypeError, ValueError: kinds, dtypes or shapes do not fit the network and the loss.
    """
    x = _values("x", x, network.dtype)
    if x.ndim != 2 or x.shape[1] != network.in_features:
        raise ValueError(
            f"fit: x must have shape (samples, in_features) with in_features ="
            f" {network.in_features}, got {tuple(x.shape)}"
        )
    outputs = network.out_features
    target: Any = None
    classes: Any = None
    if loss.takes_classes:
        classes = _classes(y, loss, outputs)
    else:
        target = _values("y", y, network.dtype)
        if target.ndim != 2 or target.shape[1] != outputs:
            raise ValueError(
                "fit: y must have shape (samples, out_features) with out_features ="
                f" {outputs}, got {tuple(target.shape)}"
            )
    rows = len(classes) if target is None else len(target)
    if rows != len(x):
        raise ValueError(f"fit: x and y must have as many rows, got {len(x)} and {rows}")
    if weight is not None:
        weight = _weight(weight, network.dtype)
        if tuple(weight.shape) != (rows,):
            raise ValueError(
                f"fit: sample_weight must have shape ({rows},), got {tuple(weight.shape)}"
            )
    extents = [(0, 0) if p is None else extent(p) for p in network]
    for name, values in (("x", x), ("y", target), ("sample_weight", weight)):
        if values is None:
            continue
        begin, end = extent(values)
        for place, p, (first, last) in zip(PARAMETERS, network, extents, strict=True):
            if begin < last and first < end and share_memory(values, p):
                raise NotImplementedError(
                    f"fit: {name} shares memory with {place}, which it would not read"
                    f" anew{WRITE_THE_LOOP}"
                )
    return Samples(x, target, classes, weight)


def draw_from(generator: torch.Generator | None) -> Draw:
    """Permutations as ``torch.randperm`` draws them."""
    source = torch.default_generator if generator is None else generator

    def restore(state: Tensor) -> None:
        source.set_state(state)

    return Draw(
        permutation=lambda count: torch.randperm(count, generator=source).numpy(),
        state=source.get_state,
        restore=restore,
    )
