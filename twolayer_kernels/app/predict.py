"""``twolayer predict``: what a trained network says of a table's rows, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import torch
from pyarrow import csv as arrow_csv
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ..modules import FusedTwoLayer
from . import checkpoint
from .columns import Array, Cells, not_among
from .failures import BadInput
from .files import read_features
from .machine import describe_backend, set_threads
from .outputs import is_same_file, make_folder, whole_file
from .preparation import Preparation, Text
from .tables import KINDS, Source, is_table, open_table
from .told import listed

_NAMES = 12
_ROWS = 2**16


@dataclass(frozen=True)
class Options:
    """The command's options."""

    model: Path
    table: Path
    out: Path
    probabilities: bool
    threads: int | None
    backend: str | None


@dataclass(frozen=True)
class Model:
    """A trained network with what surrounds it."""

    network: FusedTwoLayer
    preparation: Preparation
    classes: list[int] | list[str] | None
    epochs: int
    trained_on: str


def load_model(path: Path, backend: str | None) -> Model:
    """The fused network of a checkpoint, and its preparation.

    Raises:
        BadInput: the file is no checkpoint of ``twolayer train``, or its parts do not fit.
    """
    content = checkpoint.load(path)
    preparation = checkpoint.preparation_of(path, content)
    if preparation is None:
        raise BadInput(f"{path}: does not say how its features are made; train it again")
    weights, classes = content["model"], checkpoint.classes_of(path, content)
    outputs = len(classes) if classes is not None else len(preparation.target_mean)
    try:
        hidden = len(weights["linear1.weight"])
        network = FusedTwoLayer(preparation.features, hidden, outputs, backend=backend)
        network.load_state_dict(weights)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: its network does not fit its preparation") from error
    name = Path(str(content["data"].get("name"))).name
    return Model(network.eval(), preparation, classes, content["epoch"], name)


@dataclass
class Rows:
    """The rows of a table, as features, in batches; and what was seen in them meanwhile."""

    path: Path
    preparation: Preparation
    source: Source | None = None
    rows: int = 0
    unknown: dict[str, tuple[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.suffix.lower() == ".npz":
            self._check_array_model()
        elif not is_table(self.path):
            raise BadInput(f"{self.path}: must be a {KINDS} file")
        else:
            # Where training saw no header, a first line of text is a row of text.
            names = self.preparation.used if self.preparation.header else None
            self.source = open_table(self.path, names)
            self._check_columns(self.source)

    def _check_array_model(self) -> None:
        if self.preparation.target:
            names = ", ".join(self.preparation.used)
            raise BadInput(f"{self.path}: the model was trained on a table with columns {names}")
        self.array = read_features(self.path)
        if self.array.shape[1] != self.preparation.features:
            raise BadInput(
                f"{self.path}: x has {self.array.shape[1]} features,"
                f" the model needs {self.preparation.features}"
            )

    def _check_columns(self, source: Source) -> None:
        missing = [name for name in self.preparation.used if name not in source.names]
        if missing:
            word = "column" if len(missing) == 1 else "columns"
            names = ", ".join(repr(name) for name in missing[:_NAMES])
            more = f" and {len(missing) - _NAMES} more" * (len(missing) > _NAMES)
            raise BadInput(
                f"{self.path}: lacks {word} {names}{more}, which the model needs;"
                f" its columns: {listed(source.names, _NAMES)}"
            )

    @property
    def ignored(self) -> list[str]:
        """Columns that the model does not use."""
        if self.source is None:
            return []
        used = set(self.preparation.used)
        return [name or "(no name)" for name in self.source.names if name not in used]

    @property
    def share_done(self) -> float:
        if self.source is None:
            return self.rows / max(len(self.array), 1)
        return self.source.done / max(self.source.total, 1)

    def batches(self) -> Iterator[Array]:
        """Features of the rows, float32.

        Raises:
            BadInput: the file is damaged, or a cell is no number where one is needed.
        """
        if self.source is None:
            for start in range(0, len(self.array), _ROWS):
                yield self._checked(
                    self.preparation.transform_array(self.array[start : start + _ROWS])
                )
            return
        places = {name: self.source.names.index(name) for name in self.preparation.used}
        for batch in self.source.batches():
            cells = {name: batch.column(place) for name, place in places.items()}
            for text in self.preparation.texts:
                self._look_for_unknown(text, cells[text.name])
            comma = self.source.decimal_comma
            yield self._checked(self.preparation.transform(cells, comma, self._refuse))

    def _checked(self, x: Array) -> Array:
        if not np.isfinite(x).all():
            row = self.rows + int(np.argwhere(~np.isfinite(x))[0, 0])
            raise BadInput(f"{self.path}: {self._place(row)} has a number too large to scale")
        self.rows += len(x)
        return x

    def _place(self, row: int) -> str:
        return self.source.place(row) if self.source is not None else f"x[{row}]"

    def _refuse(self, row: int, name: str, what: str) -> NoReturn:
        raise BadInput(f"{self.path}: {self._place(self.rows + row)}, column {name!r} {what}")

    def _look_for_unknown(self, text: Text, cells: Cells) -> None:
        if not text.rare:  # where there are rare values, an unknown one is one of them
            count, example = not_among(cells, text.categories)
            if count:
                before, first = self.unknown.get(text.name, (0, example))
                self.unknown[text.name] = before + count, first


def _columns(model: Model, outputs: torch.Tensor, probabilities: bool) -> dict[str, Any]:
    """The columns of the predictions of a batch, by name."""
    if model.classes is None:
        mean, scale = (
            torch.tensor(values, dtype=torch.float64)
            for values in (model.preparation.target_mean, model.preparation.target_scale)
        )
        raw = (outputs.double() * scale + mean).numpy()
        if raw.shape[1] == 1:
            return {"prediction": raw[:, 0]}
        return {f"prediction_{number + 1}": column for number, column in enumerate(raw.T)}
    columns = {"prediction": np.array(model.classes)[outputs.argmax(1).numpy()]}
    if probabilities:
        shares = outputs.double().softmax(1).numpy()
        for label, share in zip(model.classes, shares.T, strict=True):
            columns[f"probability_{label}"] = share
    return columns


def _check_paths(options: Options) -> None:
    if options.out.is_dir():
        raise BadInput(f"{options.out}: --out must be a file, this is a folder")
    for path in (options.table, options.model):
        if is_same_file(options.out, path):
            raise BadInput(f"{options.out}: --out would overwrite what is read")


def _write(
    model: Model, rows: Rows, batches: Iterator[Array], options: Options, progress: Progress
) -> None:
    task = progress.add_task(escape(options.table.name), total=1.0, rows="")
    writer = None
    with whole_file(options.out) as unfinished:
        try:
            for x in batches:
                with torch.inference_mode():
                    outputs = model.network(torch.from_numpy(x))
                table = pa.table(_columns(model, outputs, options.probabilities))
                if writer is None:
                    writer = arrow_csv.CSVWriter(unfinished, table.schema)
                writer.write_table(table)
                progress.update(task, completed=rows.share_done, rows=f"{rows.rows} rows")
        finally:
            if writer is not None:
                writer.close()


def predict(options: Options, console: Console) -> None:
    """Predicts each row of a table; writes the predictions; says what was ignored and unknown.

    Raises:
        BadInput: a file or an option cannot be used; nothing is written then.
    """
    set_threads(options.threads)
    _check_paths(options)
    kernels = describe_backend("cpu", torch.float32, options.backend)
    model = load_model(options.model, options.backend)
    if options.probabilities and model.classes is None:
        raise BadInput(f"{options.model}: is a regression and has no --probabilities")
    rows = Rows(options.table, model.preparation)
    batches = rows.batches()
    first = next(batches, None)  # a small table's faults come before anything is said
    if first is None:
        raise BadInput(f"{options.table}: the file holds no samples")
    make_folder(options.out.parent)

    def say(line: str, style: str | None = None) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True, style=style)

    target = model.preparation.target
    named = (target if model.preparation.header else f"column {target}") if target else "y"
    say(
        f"{options.model.name}: predicts {named} as {model.trained_on} taught it in"
        f" {model.epochs} epochs; by {kernels}"
    )
    if rows.ignored:
        names = [f"{name} (the target)" if name == target else name for name in rows.ignored]
        say(f"columns not used: {listed(names, _NAMES)}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        _write(model, rows, chain([first], batches), options, progress)
    for name, (count, example) in rows.unknown.items():
        some = "1 row has a value" if count == 1 else f"{count} rows have values"
        say(f"note: {name}: {some} not seen in training, as {example[:40]!r}", style="yellow")
    say(f"predictions: {options.out} ({rows.rows} rows)")
