"""``fit``: what it may be given, and the walk over its chunks of steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from .. import checks
from ..engine import Batches, Chunk, Held, NonFiniteLoss, Samples, Source, Walk, tell_losses
from . import losses as known_losses
from .data import draw_from, samples_of
from .forked import on_own_thread
from .networks import WRITE_THE_LOOP, network_of
from .optimizers import BY_NAME, Movers
from .progress import Bar
from .running import Run
from .schedules import schedule_of

Callback = Callable[[int, Tensor], Any]


def _optimizer_of(
    model: nn.Module, optimizer: Any, lr: float | None, options: dict[str, Any]
) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        if lr is not None or options:
            given = ", ".join([*(["lr"] if lr is not None else []), *options])
            raise ValueError(f"fit: {given} belong to the optimizer that was given; set them there")
        return optimizer
    if not isinstance(optimizer, str):
        raise TypeError(
            f"fit: optimizer must be one of {', '.join(BY_NAME)} or a torch.optim optimizer, got"
            f" {type(optimizer).__name__}"
        )
    if optimizer not in BY_NAME:
        raise ValueError(f"fit: optimizer must be one of {', '.join(BY_NAME)}, got {optimizer!r}")
    arguments = options if lr is None else {"lr": lr, **options}
    return BY_NAME[optimizer](model.parameters(), **arguments)


@on_own_thread()
def fit(
    model: nn.Module,
    x: Any,
    y: Any = None,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    optimizer: str | Optimizer = "sgd",
    loss: str | nn.Module = "mse_sum",
    batch_size: int | None = None,
    shuffle: bool = True,
    generator: torch.Generator | None = None,
    sample_weight: Any = None,
    schedule: Any = None,
    schedule_per: str = "step",
    callback: Callback | None = None,
    callback_every: int | None = None,
    progress: bool = False,
    nan: str = "stop",
    l2_penalty: float = 0.0,
    **options: Any,
) -> Tensor:
    """Trains a two-layer network in place: many steps of the usual loop in one compiled call.

    Each step is what ``loss_fn(model(x), y)``, ``zero_grad``, ``backward`` and ``optimizer.step``
    do, up to rounding; ``.grad`` of the parameters is neither read nor written.

    Args:
        model: ``FusedTwoLayer``, ``TwoLayerNet`` or ``nn.Sequential`` of ``Linear, ReLU, Linear``,
            on the CPU; frozen parameters stay as they are.
        x: ``(samples, in_features)``, a tensor or NumPy array (a memory-mapped one is read batch by
            batch) of the model's dtype; or a ``DataLoader`` of pairs ``(x, y)`` or triples with
            weights, each batch a step; ``y`` and all about batches are left out then.
        y: ``(samples, out_features)`` in the model's dtype; for ``"cross_entropy"`` classes,
            ``(samples,)`` of int64.
        steps, epochs: how many updates, or passes over the samples; one of the two.
        lr: the learning rate; ``None`` is the optimizer's own default.
        optimizer: ``"sgd"``, ``"adam"``, ``"adamw"`` or ``"rmsprop"``, with torch.optim's options
            as further keyword arguments; or a ``torch.optim`` optimizer over the model's
            parameters, whose groups and state are read and written back, so that ``fit`` and other
            loops can take turns.
        loss: ``"mse_sum"``, ``"mse_mean"``, ``"cross_entropy"`` or ``"bce_with_logits"``; or
            torch's ``MSELoss``, ``CrossEntropyLoss`` or ``BCEWithLogitsLoss``, whose options are
            read.
        batch_size: samples of a step, fewer in the last of an epoch; ``None`` takes all of them.
        shuffle: whether each epoch takes the samples in the order of
            ``torch.randperm(samples, generator=generator)``; nothing is drawn where
            ``batch_size`` is ``None``, as the order of one batch changes rounding alone.
        generator: ``None`` is torch's default one.
        sample_weight: ``(samples,)``: multiplies each sample's loss; a mean is then divided by the
            sum of the weights.
        schedule: a scheduler of the given optimizer, or a function of the step, from 0 on, that
            returns the learning rate of all groups, whose own ``lr`` stays; asked for many steps
            ahead, so it must not look at the model.
        schedule_per: whether a scheduler is stepped after each ``"step"``, where it may change
            learning rates, momenta and first betas, or each ``"epoch"``.
        callback: called as ``callback(steps_done, losses_so_far)`` with the model as it is then;
            a true result ends the run. It may change weights, ``requires_grad``, the optimizer's
            groups and state, as between two steps of the loop.
        callback_every: steps between its calls; ``None``: an epoch where ``epochs`` are counted,
            else a hundredth of ``steps``.
        progress: shows a bar; needs ``rich``, of the extra ``cli``.
        nan: ``"stop"`` raises at the first loss that is no finite number, ``"continue"`` goes on.
        l2_penalty: adds ``l2_penalty / 2 * (sum w1^2 + sum w2^2)`` to each loss.

    Returns:
        The loss of each step, float64, ``(steps,)``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or value; nothing is written.
        NotImplementedError: hooks on the layers, another device, optimizer or option.
        FloatingPointError: a loss is no finite number; the parameters are as before that step.
        KeyboardInterrupt: between two steps. This, and whatever a callback or loader raises, leaves
            model and optimizer after a whole step, with the losses so far as its ``losses``.

    Source: the formulas of the losses and optimizers are torch's, named in ``csrc/training``.

    Example:
        >>> import torch
        >>> from twolayer_kernels import FusedTwoLayer, fit
        >>> x = torch.linspace(-1, 1, 64).reshape(64, 1)
        >>> losses = fit(FusedTwoLayer(1, 16, 1), x, x.abs(), steps=200, optimizer="adam", lr=0.02)
        >>> losses.shape, bool(losses[-1] < losses[0])
        (torch.Size([200]), True)
    """
    network = network_of(model)
    if (steps is None) == (epochs is None):
        raise ValueError("fit: one of steps and epochs must be given, and not both")
    steps = checks.check_count("fit", "steps", steps)
    epochs = checks.check_count("fit", "epochs", epochs)
    batch_size = checks.check_count("fit", "batch_size", batch_size)
    callback_every = checks.check_count("fit", "callback_every", callback_every)
    if nan not in ("stop", "continue"):
        raise ValueError(f"fit: nan must be 'stop' or 'continue', got {nan!r}")
    checks.check_callback("fit", "callback", callback)
    checks.check_penalty("fit", l2_penalty)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"fit: generator must be a torch.Generator, got {type(generator).__name__}")
    if torch.is_autocast_enabled("cpu"):
        raise NotImplementedError(f"fit: it trains without autocast{WRITE_THE_LOOP}")
    of_torch = _optimizer_of(model, optimizer, lr, options)
    movers = Movers(of_torch, network)
    plan = schedule_of(schedule, schedule_per, movers, of_torch if of_torch is optimizer else None)
    told_loss = known_losses.loss_of(loss, network.out_features)
    run = Run(network, lambda: network_of(model), movers, told_loss, l2_penalty, nan == "stop")
    if isinstance(x, DataLoader):
        of_loader = {
            "y": y,
            "sample_weight": sample_weight,
            "batch_size": batch_size,
            "generator": generator,
        }
        for name, given in of_loader.items():
            if given is not None:
                raise ValueError(f"fit: {name} comes from the DataLoader, got it besides")
        source: Source = _Loader(x, lambda *batch: samples_of(network, told_loss, *batch))
    else:
        samples = samples_of(network, told_loss, x, y, sample_weight)
        if len(samples.x) == 0:
            raise ValueError("fit: x must hold samples, got none")
        draw = draw_from(generator) if shuffle else None
        source = Held(samples, Batches(len(samples.x), batch_size, draw))
    if epochs is not None:
        steps = epochs * source.per_epoch
    assert steps is not None
    every = callback_every or (source.per_epoch if epochs is not None else max(1, steps // 100))
    with Bar(steps) if progress else nullcontext() as bar:
        told = (lambda done, loss: None) if bar is None else bar.told
        try:
            Walk(run, plan, source, steps, callback, every, told).go()
        except BaseException as error:
            tell_losses(error, run.losses(isinstance(error, NonFiniteLoss)))
            raise
    return run.losses()


class _Loader(Source):
    """Batches as a loader hands them out, each a step; it is begun again at its end."""

    def __init__(self, loader: Iterable[Any], read: Callable[..., Samples]) -> None:
        self._loader, self._read = loader, read
        self._batches: Iterator[Any] = iter(())
        self._taken = 0  # of the iterator's batches
        try:
            self.per_epoch = max(1, len(loader))  # type: ignore[arg-type]
        except TypeError as error:  # of a stream
            raise NotImplementedError(
                f"fit: the DataLoader must have a length{WRITE_THE_LOOP}"
            ) from error

    def _next(self) -> Any:
        for _ in range(2):
            batch = next(self._batches, None)
            if batch is not None:
                self._taken += 1
                return batch
            self._batches, self._taken = iter(self._loader), 0
        raise ValueError("fit: the DataLoader hands out no batches")

    def chunks(self, begin: int, end: int) -> Iterator[tuple[Samples, Chunk]]:
        for step in range(begin, end):
            batch = self._next()
            if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
                raise TypeError("fit: the DataLoader must hand out pairs (x, y) or (x, y, weight)")
            samples = self._read(*batch, *([None] if len(batch) == 2 else []))
            yield samples, Batches(len(samples.x), None, None).chunk(0, 1)._replace(begin=step)
            if self._taken == self.per_epoch:  # a loop would ask once more, and samplers draw then
                more = list(itertools.islice(self._batches, 1))
                self._batches = itertools.chain(more, self._batches)
