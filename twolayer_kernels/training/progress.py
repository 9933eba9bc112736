"""The bar of ``fit(progress=True)``, drawn by ``rich``."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Bar:
    """Steps done and the last loss, while the block runs."""

    def __init__(self, steps: int) -> None:
        try:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )
        except ImportError as error:
            raise ImportError(
                "fit(progress=True) needs rich: pip install 'twolayer_kernels[cli]'"
            ) from error
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps  loss {task.fields[loss]:.4g}"),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task("fit", total=steps, loss=float("nan"))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def told(self, done: int, loss: float) -> None:
        self._progress.update(self._task, completed=done, loss=loss)
