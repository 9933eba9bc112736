"""From a table's columns to features, by scikit-learn's transformers, kept as plain values.

Numbers: the median where one is missing, a feature that says where, scaling to mean 0 and
standard deviation 1. Text: a feature for each frequent value, one for all the rare ones.
Everything is learnt from the training part and is a :class:`Preparation`, which JSON can hold:
the transformers are made from it, after training as before a prediction.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from .columns import Array, Cells, as_numbers, as_text, fault

# A value of text that stands once in the training part teaches nothing; and no column becomes
# more features than this.
MIN_FREQUENCY = 2
MAX_CATEGORIES = 64
FORMAT = 1
_CHUNK_ROWS = 2**16


@dataclass(frozen=True)
class Number:
    """A column of numbers; without ``median``, none may be missing."""

    name: str
    median: float | None = None
    indicator: bool = False
    truths: bool = False


@dataclass(frozen=True)
class Text:
    """A column of text; ``None`` among its categories is the missing value."""

    name: str
    categories: list[str | None]
    rare: bool


@dataclass(frozen=True)
class LeftOut:
    """A column that is not used."""

    name: str
    why: str


Column = Number | Text | LeftOut
_KINDS: dict[str, type[Column]] = {"number": Number, "text": Text, "left out": LeftOut}

# Raises BadInput for the cell of this row, in the column of this name, with what is wrong.
Refuse = Callable[[int, str, str], None]


def encoder_for(values: Array) -> Any:
    """scikit-learn's encoder, fitted on one column's text (samples, 1)."""
    return OneHotEncoder(
        min_frequency=MIN_FREQUENCY,
        max_categories=MAX_CATEGORIES + 1,  # the rare ones' feature counts
        handle_unknown="infrequent_if_exist",
        sparse_output=False,
    ).fit(values)


def numbers_pipeline(impute: bool) -> Any:
    """scikit-learn's steps for all columns of numbers together, not fitted yet."""
    imputer = ("imputer", SimpleImputer(strategy="median", add_indicator=True))
    return Pipeline([*([imputer] if impute else []), ("scaler", StandardScaler())])


@dataclass(frozen=True)
class Preparation:
    """How features come from columns, and raw targets from the network's outputs.

    Args:
        columns: all columns but the target, in the table's order.
        mean, scale: of the numbers, then of the features that say where one was missing.
        target: the target column's name; empty for an array.
        target_mean, target_scale: ``raw = output * scale + mean``, for regression.
        text: the columns of ``--text``.
        header: whether the columns' names are the table's own, not their numbers from 1.
    """

    columns: list[Column]
    mean: list[float]
    scale: list[float]
    target: str
    target_mean: list[float] = field(default_factory=list)
    target_scale: list[float] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    header: bool = False

    @cached_property
    def numbers(self) -> list[Number]:
        return [column for column in self.columns if isinstance(column, Number)]

    @cached_property
    def texts(self) -> list[Text]:
        return [column for column in self.columns if isinstance(column, Text)]

    @property
    def is_plain(self) -> bool:
        """Whether it only scales: that of an array, or of ``--no-prepare``."""
        return all(isinstance(c, Number) and c.median is None for c in self.columns)

    @property
    def used(self) -> list[str]:
        """The names of the columns that a table must have."""
        return [column.name for column in self.columns if not isinstance(column, LeftOut)]

    @property
    def features(self) -> int:
        return len(self.mean) + sum(len(text.categories) + text.rare for text in self.texts)

    @property
    def feature_mean(self) -> Array:
        """``x = (raw - feature_mean) / feature_scale``; the features of text are not scaled."""
        return np.pad(self.mean, (0, self.features - len(self.mean)))

    @property
    def feature_scale(self) -> Array:
        pad = (0, self.features - len(self.mean))
        return np.pad(self.scale, pad, constant_values=1.0)

    @cached_property
    def pipeline(self) -> Any:
        """scikit-learn's steps for the numbers, as they were when fitted.

        scikit-learn keeps fitted transformers as pickles alone. So the imputer is fitted again,
        on the least table that has these medians, with missing values where there were some;
        what the scaler knows are public attributes.
        """
        medians = np.array([number.median for number in self.numbers], np.float64)
        pipeline = numbers_pipeline(impute=not np.isnan(medians).any())
        if "imputer" in pipeline.named_steps:
            some = np.where([number.indicator for number in self.numbers], np.nan, medians)
            pipeline.named_steps["imputer"].fit(np.stack([medians, some, some]))
        scaler = pipeline.named_steps["scaler"]
        scaler.mean_, scaler.scale_ = np.array(self.mean), np.array(self.scale)
        scaler.var_ = scaler.scale_**2
        scaler.n_features_in_, scaler.n_samples_seen_ = len(self.mean), 1
        return pipeline

    @cached_property
    def encoders(self) -> list[Any]:
        """An encoder for each column of text, from the least column with these categories."""
        encoders = []
        for text in self.texts:
            rare = "a rare value"  # stands for all of them
            while rare in text.categories:
                rare += "_"
            cells = text.categories * MIN_FREQUENCY + [rare] * text.rare
            encoders.append(encoder_for(np.array(cells, object)[:, None]))
        return encoders

    def transform(self, table: dict[str, Cells], decimal_comma: bool, refuse: Refuse) -> Array:
        """Features of a table's rows, float32.

        Args:
            table: the columns of :attr:`used`, by name.
            decimal_comma: whether numbers may have one.
            refuse: is called for a cell that is no number where one is needed.
        """
        rows = len(next(iter(table.values())))
        x = np.empty((rows, self.features), np.float32)
        for start in range(0, rows, _CHUNK_ROWS):
            chunk = {name: cells.slice(start, _CHUNK_ROWS) for name, cells in table.items()}
            signs: dict[str, str] = {}
            values = [
                self._values(number, chunk[number.name], decimal_comma, start, refuse, signs)
                for number in self.numbers
            ]
            if {".", ","} <= signs.keys():
                with_point = chunk[signs["."]]
                row = next(row for row, cell in enumerate(with_point.to_pylist()) if "." in cell)
                what = f"has a decimal point, and column {signs[',']!r} decimal commas"
                refuse(start + row, signs["."], what)
            text = [as_text(chunk[column.name])[:, None] for column in self.texts]
            x[start : start + _CHUNK_ROWS] = self._features(values, text)
        return x

    def transform_array(self, x: Array) -> Array:
        """Features of numbers (samples, columns), float32."""
        return self._features(list(x.T), []).astype(np.float32)

    def _features(self, values: list[Array], text: list[Array]) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            parts = [self.pipeline.transform(np.stack(values, 1))] if values else []
            parts += [
                encoder.transform(column)
                for encoder, column in zip(self.encoders, text, strict=True)
            ]
            return np.concatenate(parts, 1, dtype=np.float32, casting="same_kind")

    def _values(
        self,
        number: Number,
        cells: Cells,
        decimal_comma: bool,
        start: int,
        refuse: Refuse,
        signs: dict[str, str],
    ) -> Array:
        """The column's numbers, all finite or missing; notes its decimal sign."""
        found = as_numbers(cells, decimal_comma)
        signs.setdefault(found.decimal, number.name)
        bad = found.wrong | np.isinf(found.values)
        if number.median is None:
            bad |= found.missing
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            refuse(start + row, number.name, fault(cells[row].as_py()))
        return found.values

    def to_json(self) -> str:
        kinds = {kind: name for name, kind in _KINDS.items()}
        columns = [{"kind": kinds[type(column)], **asdict(column)} for column in self.columns]
        content = {"format": FORMAT, **asdict(self), "columns": columns}
        return json.dumps(content, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Preparation:
        """The preparation that :meth:`to_json` wrote.

        Raises:
            ValueError: the text is something else.
        """
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT:
                raise ValueError("its preparation has another format than this version reads")
            columns = [_KINDS[column.pop("kind")](**column) for column in content.pop("columns")]
            found = cls(columns=columns, **content)
            if not found._is_sane():
                raise ValueError("its preparation is damaged")
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError("its preparation is damaged") from error
        return found

    def _is_sane(self) -> bool:
        def finite(values: Sequence[object]) -> bool:
            return all(isinstance(value, float) and math.isfinite(value) for value in values)

        medians = [number.median for number in self.numbers if number.median is not None]
        indicators = sum(number.indicator for number in self.numbers)
        return (
            finite([*medians, *self.mean, *self.scale, *self.target_mean, *self.target_scale])
            and all(isinstance(column.name, str) for column in self.columns)
            and len(medians) in (0, len(self.numbers))
            and len(self.mean) == len(self.scale) == len(self.numbers) + indicators
            and 0.0 not in self.scale
            and all(isinstance(name, str) for name in [self.target, *self.text])
            and len(self.target_mean) == len(self.target_scale)
            and all(
                text.categories
                and len(set(text.categories)) == len(text.categories)
                and all(value is None or isinstance(value, str) for value in text.categories)
                and isinstance(text.rare, bool)
                for text in self.texts
            )
        )


def plain(
    names: Sequence[str], target: str, mean: Array, scale: Array, header: bool
) -> Preparation:
    """The preparation of arrays and of ``--no-prepare``: every column a number, only scaled."""
    columns: list[Column] = [Number(name) for name in names]
    return Preparation(columns, mean.tolist(), scale.tolist(), target, header=header)
