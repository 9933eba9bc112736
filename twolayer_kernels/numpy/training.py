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
    Schedule,
    Walk,
    tell_losses,
)
from .network import CHECKS, Array
from .options import (
    LOSSES,
    OPTIONS,
    check_known,
    check_memory,
    check_options,
    samples_of,
    told_loss,
)
from .running import Run, State


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
            ``ignore_index`` for ``"cross_entropy"``, ``pos_weight`` (a number, or one for each
            output) for ``"bce_with_logits"``; ``mean=False`` sums these two.
        batch_size: samples of a step, fewer in the last of an epoch; ``None`` takes all of them.
        shuffle: whether each epoch takes the samples in the order of ``rng.permutation``; nothing
            is drawn where ``batch_size`` is ``None``.
        rng: ``None`` is a new ``np.random.default_rng()``.
        sample_weight, schedule, callback, callback_every, nan, l2_penalty: as for
            :func:`twolayer_kernels.fit`, on arrays; a callback may change these and the state's
            in place.
        state: the optimizer's arrays and its count of steps, filled where it is empty and carried
            on where it is not; ``None`` begins anew and forgets. Its keys: docs/numpy.md.

    Returns:
        The loss of each step, float64, ``(steps,)``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or value; nothing is written.
        FloatingPointError: a loss is no finite number; the weights are as before that step.
        KeyboardInterrupt: between two steps. This, and whatever a callback or schedule raises,
            leaves weights and state after a whole step, with the losses so far as its ``losses``.

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
    check_known("optimizer", optimizer, OPTIONS)
    check_known("loss", loss, LOSSES)
    check_known("nan", nan, ("stop", "continue"))
    if (steps is None) == (epochs is None):
        raise ValueError("fit: one of steps and epochs must be given, and not both")
    steps = checks.check_count("fit", "steps", steps)
    epochs = checks.check_count("fit", "epochs", epochs)
    batch_size = checks.check_count("fit", "batch_size", batch_size)
    callback_every = checks.check_count("fit", "callback_every", callback_every)
    unknown = [name for name in options if name not in OPTIONS[optimizer]]
    if unknown:
        raise TypeError(f"fit: {optimizer} has no option {', '.join(unknown)}")
    chosen = {**OPTIONS[optimizer], **options, **({} if lr is None else {"lr": lr})}
    check_options(optimizer, chosen)
    checks.check_callback("fit", "callback", callback)
    checks.check_callback("fit", "schedule", schedule)
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"fit: rng must be a numpy.random.Generator, got {type(rng).__name__}")
    given = {} if loss_options is None else loss_options
    name, told = told_loss(loss, given, l2_penalty, w2.shape[0], x.dtype)
    samples = samples_of(loss, told["ignore_index"], x, y, sample_weight, w2.shape[0])
    state = {} if state is None else state
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
        (name, told),
        state,
        nan == "stop",
    )
    check_memory(samples, {"w1": w1, "w2": w2, "b1": b1, "b2": b2}, state)
    plan = Schedule() if schedule is None else ByFunction(run.constant_rates, schedule)
    every = callback_every or (batches.per_epoch if epochs is not None else max(1, steps // 100))
    try:
        Walk(run, plan, Held(samples, batches), steps, callback, every).go()
    except BaseException as error:
        tell_losses(error, run.losses(isinstance(error, NonFiniteLoss)))
        raise
    return run.losses()


_OF_MANY_STEPS = (
    *("epochs", "batch_size", "shuffle", "rng", "schedule"),
    *("callback", "callback_every"),
)


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
    for name in _OF_MANY_STEPS:
        if name in options:
            raise TypeError(f"step: {name} is nothing of one step's on all samples; fit takes it")
    return float(fit(x, y, w1, w2, b1, b2, steps=1, state=state, **options)[0])
