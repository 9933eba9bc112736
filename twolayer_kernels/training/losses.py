"""Losses by name or as torch's own modules, in the engine's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from .. import checks, transparency
from .networks import WRITE_THE_LOOP


class Loss(NamedTuple):
    """A loss as the engine knows it."""

    name: str
    options: dict[str, Any]
    takes_classes: bool = False


def _reduced(loss: Any) -> bool:
    """Whether the loss is a mean rather than a sum."""
    if loss.reduction not in ("mean", "sum"):
        raise NotImplementedError(
            f"fit: {type(loss).__name__} must have reduction 'mean' or 'sum', got"
            f" {loss.reduction!r}{WRITE_THE_LOOP}"
        )
    return bool(loss.reduction == "mean")


def _numbers(name: str, values: Tensor | None, count: int) -> list[float] | None:
    """One number for each output."""
    if values is None:
        return None
    if values.numel() == 1 and name == "pos_weight":
        values = values.reshape(1).expand(count)
    if tuple(values.shape) != (count,):
        raise ValueError(
            f"fit: the loss's {name} must have shape ({count},), one for each output, got"
            f" {tuple(values.shape)}"
        )
    return [float(value) for value in values]


def _squared_error(loss: nn.MSELoss, outputs: int) -> Loss:
    return Loss("squared_error", {"mean": _reduced(loss)})


def _cross_entropy(loss: nn.CrossEntropyLoss, outputs: int) -> Loss:
    checks.check_smoothing("fit", loss.label_smoothing)
    options = {
        "mean": _reduced(loss),
        "label_smoothing": loss.label_smoothing,
        "class_weight": _numbers("weight", loss.weight, outputs),
        "ignore_index": loss.ignore_index,
    }
    return Loss("cross_entropy", options, takes_classes=True)


def _binary_cross_entropy(loss: nn.BCEWithLogitsLoss, outputs: int) -> Loss:
    if loss.weight is not None:
        raise NotImplementedError(
            "fit: BCEWithLogitsLoss must have no weight (sample_weight weighs samples)"
            + WRITE_THE_LOOP
        )
    positive = _numbers("pos_weight", loss.pos_weight, outputs)
    return Loss("bce_with_logits", {"mean": _reduced(loss), "pos_weight": positive})


_MODULES: dict[type[nn.Module], Callable[[Any, int], Loss]] = {
    nn.MSELoss: _squared_error,
    nn.CrossEntropyLoss: _cross_entropy,
    nn.BCEWithLogitsLoss: _binary_cross_entropy,
}
_NAMES: dict[str, Callable[[], nn.Module]] = {
    "mse_sum": lambda: nn.MSELoss(reduction="sum"),
    "mse_mean": nn.MSELoss,
    "cross_entropy": nn.CrossEntropyLoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
}


def loss_of(loss: Any, outputs: int) -> Loss:
    """The engine's loss for a name or one of torch's modules.

    Raises:
        TypeError, ValueError: it is neither, or an option does not fit.
        NotImplementedError: an option that the engine lacks.
    """
    if isinstance(loss, str):
        if loss not in _NAMES:
            raise ValueError(f"fit: loss must be one of {', '.join(_NAMES)}, got {loss!r}")
        loss = _NAMES[loss]()
    if type(loss) not in _MODULES:
        known = ", ".join(kind.__name__ for kind in _MODULES)
        raise TypeError(
            f"fit: loss must be one of {', '.join(_NAMES)} or torch.nn's {known}, got"
            f" {type(loss).__name__}{WRITE_THE_LOOP}"
        )
    if transparency.is_observed(loss) or "forward" in vars(loss):
        raise NotImplementedError(
            f"fit: the loss has hooks or a forward of its own{WRITE_THE_LOOP}"
        )
    return _MODULES[type(loss)](loss, outputs)
