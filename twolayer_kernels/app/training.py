"""Training one network three ways from the same weights, in turns: fused, plain, and by ``fit``.

All see the same batches in the same order. The timed step of the loops, fused and plain, is
forward, loss, ``zero_grad``, backward and update; taking a batch out of the data is not part of it.
``fit`` takes a round of epochs in one call, and all that the call does is timed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..modules import FusedTwoLayer, TwoLayerNet
from ..training import fit
from .data import Data
from .failures import RunFailed
from .timing import BLOCK_STEPS, Stopwatch, blocks

MIN_ROUND_STEPS = 50


@dataclass(frozen=True)
class Config:
    """What decides a training, beside its data; Adam updates the weights.

    Args:
        loss: ``"cross_entropy"``, ``"mse"`` (mean over all elements) or ``"mse_sum"``.
    """

    hidden_features: int
    batch_size: int
    lr: float
    seed: int
    loss: str


LOSSES: dict[str, nn.Module] = {
    "cross_entropy": nn.CrossEntropyLoss(),
    "mse": nn.MSELoss(),
    "mse_sum": nn.MSELoss(reduction="sum"),
}


@dataclass
class Side:
    """A network with its optimizer, the mean loss of each epoch, and its timings."""

    model: nn.Module
    lr: float
    losses: list[float] = field(default_factory=list)
    score: float = float("nan")
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.lr, fused=True)

    def run_block(self, batches: list[tuple[Tensor, Tensor]], loss_fn: nn.Module) -> list[Tensor]:
        losses, durations = [], []
        for x, y in batches:
            start = time.perf_counter()
            loss = loss_fn(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            durations.append(time.perf_counter() - start)
            losses.append(loss.detach())
        self.stopwatch.add_block(durations)
        return losses

    def run_fit(
        self, data: Data, config: Config, epochs: int, generator: torch.Generator
    ) -> Tensor:
        """These epochs in one call; a loss that is no number is left to whoever reads them."""
        batch_size = config.batch_size if config.batch_size < len(data.x_train) else None
        start = time.perf_counter()
        losses = fit(
            self.model,
            data.x_train,
            data.y_train,
            epochs=epochs,
            optimizer=self.optimizer,
            loss=LOSSES[config.loss],
            batch_size=batch_size,
            generator=generator,
            nan="continue",
        )
        self.stopwatch.add_run(time.perf_counter() - start, len(losses))
        return losses


class Training:
    """Three networks on one data set; :meth:`run` goes on from wherever they stand."""

    def __init__(self, data: Data, config: Config, backend: str | None = None) -> None:
        self.data, self.config = data, config
        widths = (data.in_features, config.hidden_features, data.out_features)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            plain = TwoLayerNet(*widths)
            fused = FusedTwoLayer(*widths, backend=backend)
            fitted = FusedTwoLayer(*widths)
        for model in (fused, fitted):
            model.load_state_dict(plain.state_dict())
        self.plain, self.fused, self.fitted = (
            Side(model, config.lr) for model in (plain, fused, fitted)
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.epoch = 0
        self._turns = 0

    @property
    def sides(self) -> dict[str, Side]:
        """The networks by the names that people read."""
        return {"plain torch.nn": self.plain, "fused": self.fused, "fit": self.fitted}

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.data.x_train) // self.config.batch_size)

    def _batches(self) -> list[Tensor | slice]:
        """An epoch's batches, as places in the data: shuffled, unless one batch holds it all."""
        samples = len(self.data.x_train)
        if self.config.batch_size >= samples:
            return [slice(None)]
        order = torch.randperm(samples, generator=self.generator)
        starts = range(0, samples, self.config.batch_size)
        return [order[start : start + self.config.batch_size] for start in starts]

    def _score(self, side: Side) -> float:
        """Accuracy, or the share of the targets' variance that is explained (R2)."""
        data = self.data
        x, y = (data.x_test, data.y_test) if len(data.x_test) else (data.x_train, data.y_train)
        with torch.no_grad():
            out = side.model(x)
        if data.task == "classification":
            return float((out.argmax(1) == y).double().mean())
        missed = (out - y).double().square().sum()
        spread = (y - y.mean(0)).double().square().sum()
        return float(1 - missed / spread) if spread > 0 else float("nan")

    def _run_epochs(self, epochs: int) -> None:
        loss_fn = LOSSES[self.config.loss]
        # Before the round's batches are drawn: ``fit`` draws the same ones.
        generator = torch.Generator()
        generator.set_state(self.generator.get_state())
        places = [place for _ in range(epochs) for place in self._batches()]
        fused_losses: list[Tensor] = []
        plain_losses: list[Tensor] = []
        turns = [(self.fused, fused_losses), (self.plain, plain_losses)]
        done = 0
        for size in blocks(len(places), BLOCK_STEPS):
            block = [
                (self.data.x_train[place], self.data.y_train[place])
                for place in places[done : done + size]
            ]
            done += size
            # Neither side always goes first: what the other leaves in the cache evens out.
            for side, losses in turns if self._turns % 2 == 0 else reversed(turns):
                losses += side.run_block(block, loss_fn)
            self._turns += 1
        fitted_losses = self.fitted.run_fit(self.data, self.config, epochs, generator)
        weights = torch.tensor([len(self.data.y_train[place]) for place in places]).double()
        weights = weights.reshape(epochs, -1)
        for side, step_losses in (
            (self.fused, torch.stack(fused_losses)),
            (self.plain, torch.stack(plain_losses)),
            (self.fitted, fitted_losses),
        ):
            steps = step_losses.double().reshape(epochs, -1)
            side.losses += ((steps * weights).sum(1) / weights.sum(1)).tolist()
            side.score = self._score(side)
        self.epoch += epochs

    def run(self, epochs: int) -> Iterator[int]:
        """Trains until ``epochs`` are done; yields their number after each round of some epochs.

        Raises:
            RunFailed: a loss is no number any more.
        """
        while self.epoch < epochs:
            round_epochs = -(-MIN_ROUND_STEPS // self.steps_per_epoch)
            self._run_epochs(min(round_epochs, epochs - self.epoch))
            for name, side in self.sides.items():
                if not math.isfinite(side.losses[-1]):
                    raise RunFailed(
                        f"{self.data.name}: the {name} network's loss is {side.losses[-1]} at"
                        f" epoch {self.epoch}; try a smaller --lr than {self.config.lr:g}"
                    )
            yield self.epoch
