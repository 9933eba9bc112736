"""The data of a training job: the bundled digits, the tutorials' regression, a user's own file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import fitting
from .columns import is_number
from .failures import BadInput
from .files import Samples, read_samples
from .preparation import Preparation, plain
from .tables import Table, is_table, read_table, target_place

Array = NDArray[Any]
Task = Literal["classification", "regression"]

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Data:
    """Features and targets ready for training, and what turned the raw values into them.

    Args:
        name: for tables and checkpoints.
        x_train, x_test: float32, scaled. Without test samples, scores are those of training.
        y_train, y_test: class numbers (int64), or scaled float32 targets (samples, outputs).
        classes: the raw label of each class number; ``None`` for regression.
        feature_mean, feature_scale: ``x = (raw - mean) / scale``, from the training samples.
        target_mean, target_scale: the same for regression targets.
        preparation: how ``x`` comes from a table's columns; ``None`` where there is no file.
        without_target: rows of the table that are left out, for they have no target.
    """

    name: str
    task: Task
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: list[int] | list[str] | None
    feature_mean: Tensor
    feature_scale: Tensor
    target_mean: Tensor
    target_scale: Tensor
    preparation: Preparation | None = None
    without_target: int = 0

    @property
    def short_name(self) -> str:
        return Path(self.name).name

    @property
    def in_features(self) -> int:
        return self.x_train.shape[1]

    @property
    def out_features(self) -> int:
        return len(self.classes) if self.classes is not None else self.y_train.shape[1]

    @property
    def score_name(self) -> str:
        held_out = "test" if len(self.x_test) else "training"
        return f"{held_out} accuracy" if self.task == "classification" else f"{held_out} R2"


def _split(labels: Array | None, samples: int, seed: int) -> tuple[Array, Array]:
    """Places of training and test samples; with labels, each class gives its share to the test."""
    random = np.random.default_rng(seed)
    groups = [np.arange(samples)]
    if labels is not None:
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    train, test = [], []
    for group in groups:
        shuffled = random.permutation(group)
        held_out = round(TEST_SHARE * len(group))
        test.append(shuffled[:held_out])
        train.append(shuffled[held_out:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def _scaling(train: Array, name: str) -> tuple[Array, Array]:
    """Mean and standard deviation of each column; 1 for a column that does not vary."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = train.mean(0), train.std(0)
        scale = np.where(scale > 0, scale, 1.0)
        fits = np.isfinite(((train - mean) / scale).astype(np.float32)).all()
    if not (fits and np.isfinite(mean).all() and np.isfinite(scale).all()):
        raise BadInput(f"{name}: its values are too large to scale")
    return mean, scale


def _float32(array: Array) -> Tensor:
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32)


def _quantities(y: Array, name: str) -> Array:
    """Whole-number targets as decimal ones, which make a regression."""
    if y.dtype.kind == "U":
        other = next((str(label) for label in y if not is_number(str(label), comma=False)), None)
        if other is not None:
            raise BadInput(f"{name}: --regression needs targets that are numbers, got {other!r}")
    return y.astype(np.float64)


def _classes(y: Array, name: str) -> tuple[list[int] | list[str] | None, Array | None]:
    """The classes and each sample's number among them; nothing where targets are decimal."""
    if y.dtype.kind == "f":
        return None, None
    found, labels = np.unique(y, return_inverse=True)
    if len(found) < 2:
        raise BadInput(f"{name}: a classifier needs at least 2 classes, got {len(found)}")
    if len(found) > len(y) // 2:
        raise BadInput(
            f"{name}: {len(found)} classes in {len(y)} samples are too many to learn;"
            " for regression, write the targets with a decimal point or give --regression"
        )
    return found.tolist(), labels


def _check_size(samples: int, name: str) -> None:
    if samples < 5:
        raise BadInput(f"{name}: needs at least 5 samples, got {samples}")


def _data(
    name: str,
    x: Array,
    y: Array,
    classes: list[int] | list[str] | None,
    labels: Array | None,
    train: Array,
    test: Array,
    preparation: Preparation,
    without_target: int = 0,
) -> Data:
    """Data from prepared features; decimal targets are scaled here."""
    if labels is not None:
        target_mean, target_scale = np.zeros(1), np.ones(1)
        targets = torch.tensor(labels, dtype=torch.int64)
    else:
        y = y.reshape(len(y), -1)
        target_mean, target_scale = _scaling(y[train], name)
        targets = _float32((y - target_mean) / target_scale)
    features = _float32(x)
    return Data(
        name,
        "regression" if classes is None else "classification",
        features[train],
        targets[train],
        features[test],
        targets[test],
        classes,
        _float32(preparation.feature_mean),
        _float32(preparation.feature_scale),
        _float32(target_mean),
        _float32(target_scale),
        replace(preparation, target_mean=target_mean.tolist(), target_scale=target_scale.tolist()),
        without_target,
    )


def prepare(samples: Samples, seed: int, regression: bool = False) -> Data:
    """Held-out split and scaling to mean 0 and standard deviation 1, both from ``seed`` alone.

    Args:
        regression: whether whole-number targets are quantities, not classes.

    Raises:
        BadInput: there is too little to learn from, or nothing to tell apart.
    """
    name, x, y = samples.name, samples.x, samples.y
    _check_size(len(x), name)
    y = _quantities(y, name) if regression else y
    classes, labels = _classes(y, name)
    train, test = _split(labels, len(x), seed)
    mean, scale = _scaling(x[train], name)
    names = samples.columns or [f"{column + 1}" for column in range(x.shape[1])]
    preparation = plain(names, samples.target, mean, scale, samples.header)
    return _data(name, (x - mean) / scale, y, classes, labels, train, test, preparation)


def prepare_table(
    table: Table,
    target: str | None,
    seed: int,
    text: Collection[str] = (),
    regression: bool = False,
) -> Data:
    """The same for a table: its columns become features as :mod:`.fitting` says.

    Args:
        text: names of columns to take as text, though they hold numbers.
        regression: as in :func:`prepare`.

    Raises:
        BadInput: as :func:`prepare`; or a cell is no number where nearly all others are.
    """
    name, place = str(table.path), target_place(table, target)
    rows, y = fitting.targets(table, place, text)
    _check_size(len(rows), name)
    y = _quantities(y, name) if regression else y
    classes, labels = _classes(y, name)
    train, test = _split(labels, len(rows), seed)
    preparation = fitting.fit(table, place, rows[train], text)
    x = preparation.transform(
        {column: table.column(column) for column in preparation.used},
        table.source.decimal_comma,
        table.refuse,
    )[rows]
    if not np.isfinite(x).all():
        raise BadInput(f"{name}: its values are too large to scale")
    return _data(name, x, y, classes, labels, train, test, preparation, len(table) - len(rows))


def digits(seed: int) -> Data:
    """1797 handwritten digits of 8 x 8 pixels, the set that scikit-learn brings with it."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return prepare(Samples("digits", x, y), seed)


def from_file(
    path: Path,
    target: str | None,
    seed: int,
    *,
    prepared: bool = True,
    text: Collection[str] = (),
    regression: bool = False,
) -> Data:
    """A user's file, its columns prepared where it is a table and ``prepared`` is asked for.

    Raises:
        BadInput: as :func:`prepare_table`; or ``text`` where nothing is prepared.
    """
    if text and not prepared:
        raise BadInput("--text needs the columns prepared, which --no-prepare forbids")
    if text and path.suffix.lower() == ".npz":
        raise BadInput(f"{path}: --text names a column of a table; an .npz has its x")
    if not prepared or not is_table(path):
        return prepare(read_samples(path, target), seed, regression)
    names = [*text, *([target] if target is not None else [])]
    return prepare_table(read_table(path, names), target, seed, text, regression)


def tutorial_regression(seed: int) -> Data:
    """The tutorials' problem: 64 random samples of 1000 features, 10 random targets, none held out.

    It asks whether the network can learn them by heart.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 1000, generator=generator)
    y = torch.randn(64, 10, generator=generator)
    zeros, ones = torch.zeros(1), torch.ones(1)
    return Data("regression", "regression", x, y, x[:0], y[:0], None, zeros, ones, zeros, ones)
