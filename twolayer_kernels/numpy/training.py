"""Training steps on NumPy arrays: weights change in place, an optimizer's state is a dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..engine import (
    Batches,
    ByFunction,
    Draw,
    Held,
    NonFiniteLoss,
    Reals,
    Samples,
    Schedule,
    Walk,
    overlaps_itself,
    share_memory,
)
from .network import CHECKS, Array, regular
from .running import Run, State

# The options of torch.optim's optimizers and their defaults.
_OPTIONS: dict[str, dict[str, Any]] = {
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
_OPTIONS["adamw"] = {**_OPTIONS["adam"], "weight_decay": 1e-2}
_LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "mse_sum": ("squared_error", {"mean": False}),
    "mse_mean": ("squared_error", {"mean": True}),
    "cross_entropy": ("cross_entropy", {"mean": True}),
    "bce_with_logits": ("bce_with_logits", {"mean": True}),
}


def _known(name: str, value: Any, known: Any) -> None:
    if value not in known:
        raise ValueError(f"fit: {name} must be one of {', '.join(known)}, got {value!r}")


def _samples(
    loss: str, ignored: int, x: Array, y: Array, weight: Array | None, outputs: int
) -> Samples:
    if x.ndim != 2:
        raise ValueError(f"fit: x must have shape (samples, in_features), got {x.shape}")
    if not isinstance(y, np.ndarray):
        raise TypeError(f"fit: y must be a numpy.ndarray, got {type(y).__name__}")
    if len(y) != len(x) if y.ndim else True:
        raise ValueError(
            f"fit: x and y must have as many rows, got {len(x)} and {len(y) if y.ndim else 'none'}"
        )
    if len(x) == 0:
        raise ValueError("fit: x must hold samples, got none")
    if weight is not None:
        weight = np.asarray(weight, x.dtype)
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
    return Samples(regular(x), None, np.ascontiguousarray(y), weight)


# What a loss may be told besides.
_LOSS_OPTIONS: dict[str, tuple[str, ...]] = {
    "mse_sum": (),
    "mse_mean": (),
    "cross_entropy": ("class_weight", "label_smoothing", "ignore_index", "mean"),
    "bce_with_logits": ("pos_weight", "mean"),
}
_FLAGS = ("nesterov", "maximize", "amsgrad", "centered")


def _check_options(optimizer: str, options: dict[str, Any]) -> None:
    """As torch.optim's constructors do."""
    for name, value in options.items():
        if name in _FLAGS:
            if not isinstance(value, bool | np.bool_):
                raise TypeError(f"fit: {name} must be a bool, got {value!r}")
            continue
        if name == "betas" and (not isinstance(value, tuple | list) or len(value) != 2):
            raise TypeError(f"fit: betas must be two numbers, got {value!r}")
        for number in value if name == "betas" else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float | np.number):
                raise TypeError(f"fit: {name} must be a number, got {number!r}")
            if not (0 <= number < 1 if name == "betas" else name == "dampening" or number >= 0):
                allowed = "from 0 to below 1" if name == "betas" else "at least 0"
                raise ValueError(f"fit: {name} must be {allowed}, got {number}")
    if options.get("nesterov") and (options["momentum"] <= 0 or options["dampening"] != 0):
        raise ValueError("fit: nesterov needs a momentum above 0 and no dampening")


def _told_loss(loss: str, given: dict[str, Any], penalty: float) -> tuple[str, dict[str, Any]]:
    unknown = [name for name in given if name not in _LOSS_OPTIONS[loss]]
    if unknown:
        known = ", ".join(_LOSS_OPTIONS[loss]) or "none"
        raise TypeError(f"fit: {loss} has no option {', '.join(unknown)}; it has {known}")
    checks.check_penalty("fit", penalty)
    checks.check_smoothing("fit", given.get("label_smoothing", 0.0))
    name, defaults = _LOSSES[loss]
    return name, {"ignore_index": -100, **defaults, **given, "penalty": penalty}


def _check_memory(samples: Samples, parameters: dict[str, Array | None]) -> None:
    """What is trained shares memory with nothing that is read, nor with itself."""
    seen = {"x": samples.x, "y": samples.target, "sample_weight": samples.weight}
    for name, array in parameters.items():
        if array is None:
            continue
        if overlaps_itself(array.shape, tuple(s // array.itemsize for s in array.strides)):
            raise ValueError(f"fit: {name} holds an element twice")
        for other, another in seen.items():
            if another is not None and share_memory(array, another):
                raise ValueError(f"fit: {other} and {name} share memory")
        seen[name] = array


def _draw_from(random: np.random.Generator) -> Draw:
    def restore(state: Any) -> None:
        random.bit_generator.state = state

    return Draw(
        permutation=lambda count: random.permutation(count).astype(np.int64, copy=False),
        state=lambda: random.bit_generator.state,
        restore=restore,
    )


def fit(
    x: Array,
    y: Array,
    w1: Array,
    w2: Array,
    b1: Array | None = None,
    b2: Array | None = None,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    optimizer: str = "sgd",
    loss: str = "mse_sum",
    loss_options: dict[str, Any] | None = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    rng: np.random.Generator | None = None,
    sample_weight: Array | None = None,
    schedule: Callable[[int], float] | None = None,
    callback: Callable[[int, Reals], Any] | None = None,
    callback_every: int | None = None,
    nan: str = "stop",
    l2_penalty: float = 0.0,
    state: State | None = None,
    **options: Any,
) -> NDArray[np.float64]:
    """Trains ``y = relu(x w1^T + b1) w2^T + b2`` on arrays; weights and biases change in place.

    Args:
        x: ``(samples, in_features)``; float32, float64 or float16, any strides.
        y: ``(samples, out_features)``, dtype of ``x``; for ``"cross_entropy"`` classes,
            ``(samples,)`` of int64.
        w1: ``(hidden_features, in_features)``, dtype of ``x``, any strides.
        w2: ``(out_features, hidden_features)``, likewise.
        b1, b2: ``(hidden_features,)`` and ``(out_features,)``, or ``None``.
        steps, epochs: how many updates, or passes over the samples; one of the two.
        lr: the learning rate; ``None`` is the optimizer's default in torch.optim.
        optimizer: ``"sgd"``, ``"adam"``, ``"adamw"`` or ``"rmsprop"``, with torch.optim's options
            as further keyword arguments.
        loss: ``"mse_sum"``, ``"mse_mean"``, ``"cross_entropy"`` or ``"bce_with_logits"``.
        loss_options: ``class_weight`` (a number for each output), ``label_smoothing`` and
            ``ignore_index`` for ``"cross_entropy"``, ``pos_weight`` for ``"bce_with_logits"``.
        batch_size: samples of a step, fewer in the last of an epoch; ``None`` takes all of them.
        shuffle: whether each epoch takes the samples in the order of ``rng.permutation``.
        rng: ``None`` is a new ``np.random.default_rng()``.
        sample_weight, schedule, callback, callback_every, nan, l2_penalty: as for
            :func:`twolayer_kernels.fit`, on arrays; a callback may change these and the state's
            in place.
        state: the optimizer's arrays and its count of steps, filled where it is empty and carried
            on where it is not; ``None`` begins anew and forgets.

    Returns:
        The loss of each step, float64, ``(steps,)``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or value; nothing is written.
        FloatingPointError: a loss is no finite number; the weights are as before that step.

    Example:
        >>> import numpy as np
        >>> from twolayer_kernels.numpy import fit
        >>> x = np.linspace(-1, 1, 64).reshape(64, 1)
        >>> w1, w2 = np.linspace(-1, 1, 8).reshape(8, 1), np.full((1, 8), 0.1)
        >>> losses = fit(x, np.abs(x), w1, w2, steps=100, optimizer="adam", lr=0.02)
        >>> losses.shape, bool(losses[-1] < losses[0])
        ((100,), True)
    """
    CHECKS.two_layer(x, w1, w2, b1, b2)
    _known("optimizer", optimizer, _OPTIONS)
    _known("loss", loss, _LOSSES)
    _known("nan", nan, ("stop", "continue"))
    if (steps is None) == (epochs is None):
        raise ValueError("fit: one of steps and epochs must be given, and not both")
    counts = {"steps": steps, "epochs": epochs, "batch_size": batch_size}
    for name, value in {**counts, "callback_every": callback_every}.items():
        if value is not None:
            checks.check_count("fit", name, value)
    unknown = [name for name in options if name not in _OPTIONS[optimizer]]
    if unknown:
        raise TypeError(f"fit: {optimizer} has no option {', '.join(unknown)}")
    chosen = {**_OPTIONS[optimizer], **options, **({} if lr is None else {"lr": lr})}
    _check_options(optimizer, chosen)
    checks.check_callback("fit", callback)
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"fit: rng must be a numpy.random.Generator, got {type(rng).__name__}")
    name, told_loss = _told_loss(loss, loss_options or {}, l2_penalty)
    samples = _samples(loss, told_loss["ignore_index"], x, y, sample_weight, w2.shape[0])
    _check_memory(samples, {"w1": w1, "w2": w2, "b1": b1, "b2": b2})
    draw = _draw_from(rng or np.random.default_rng()) if shuffle and batch_size else None
    batches = Batches(len(x), batch_size, draw)
    if epochs is not None:
        steps = epochs * batches.per_epoch
    assert steps is not None
    run = Run(
        (w1, w2, b1, b2),
        batches.batch_size,
        optimizer,
        chosen,
        (name, told_loss),
        {} if state is None else state,
        nan == "stop",
    )
    plan = Schedule() if schedule is None else ByFunction(run.constant_rates, schedule)
    every = callback_every or (batches.per_epoch if epochs is not None else max(1, steps // 100))
    try:
        Walk(run, plan, Held(samples, batches), steps, callback, every).go()
    except BaseException as error:
        seen = isinstance(error, NonFiniteLoss)
        error.losses = run.losses(seen)  # type: ignore[attr-defined]
        raise
    return run.losses()


def step(
    x: Array,
    y: Array,
    w1: Array,
    w2: Array,
    b1: Array | None = None,
    b2: Array | None = None,
    *,
    state: State | None = None,
    **options: Any,
) -> float:
    """One step of :func:`fit` on all samples: weights and biases change in place.

    Args:
        x, y, w1, w2, b1, b2, state, options: as for :func:`fit`.

    Returns:
        The loss before the step.

    Raises:
        TypeError, ValueError, FloatingPointError: as for :func:`fit`.

    Example:
        >>> import numpy as np
        >>> from twolayer_kernels.numpy import step
        >>> w1, w2 = np.ones((4, 3)), np.ones((1, 4))
        >>> step(np.ones((2, 3)), np.zeros((2, 1)), w1, w2, loss="mse_mean", lr=0.001)
        144.0
    """
    return float(fit(x, y, w1, w2, b1, b2, steps=1, state=state, **options)[0])
