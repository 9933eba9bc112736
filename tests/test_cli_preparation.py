"""Columns become features as scikit-learn's own transformers make them, kept as plain values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from twolayer_kernels.app import data, preparation
from twolayer_kernels.app.preparation import Preparation
from twolayer_kernels.app.tables import read_table

from .commands import one_thread
from .tables import messy_columns, write_table


@pytest.fixture(autouse=True)
def _on_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with one_thread():
        yield


def reference(columns, numbers, texts):
    """scikit-learn's own transformer, not fitted, and what it takes."""
    x = np.empty((len(columns["size"]), len(columns)), object)
    for place, cells in enumerate(columns.values()):
        x[:, place] = cells
    x[:, 3] = [np.nan if value is None else float(value) for value in x[:, 3]]
    x[:, 0] = [np.nan if value is None else value for value in x[:, 0]]
    number_steps = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True), StandardScaler()
    )
    encoder = OneHotEncoder(
        min_frequency=2,
        max_categories=65,
        handle_unknown="infrequent_if_exist",
        sparse_output=False,
    )
    return ColumnTransformer([("numbers", number_steps, numbers), ("texts", encoder, texts)]), x


@pytest.mark.parametrize("name", ["d.csv", "d.parquet"])
@pytest.mark.parametrize("seed", range(3))
def test_features_are_those_of_scikit_learn(seed, name):
    columns = messy_columns(seed)
    table = read_table(write_table(columns, name))
    found = data.prepare_table(table, None, seed)
    train, test = data._split(None, 200, seed)
    transformer, x = reference(columns, [0, 2, 3], [1, 5])
    transformer.fit(x[train])
    for ours, rows in ((found.x_train, train), (found.x_test, test)):
        theirs = transformer.transform(x[rows]).astype(np.float32)
        np.testing.assert_array_equal(ours.numpy(), theirs)
    assert found.in_features == found.preparation.features == theirs.shape[1]
    assert found.preparation.used == ["size", "color", "rooms", "garden", "few"]


def refused(row, name, what):
    raise AssertionError((row, name, what))


def transformed(fitted, columns):
    table = {name: pa.array([*columns[name]]) for name in fitted.used}
    return fitted.transform(table, False, refused)


def test_a_saved_preparation_is_the_fitted_one():
    columns = messy_columns(7)
    fitted = data.prepare_table(read_table(write_table(columns)), None, 0).preparation
    restored = Preparation.from_json(fitted.to_json())
    assert restored == fitted
    other = messy_columns(8)
    other["color"][:3] = ["never seen", "a rare value", None]
    other["few"][:3] = ["never seen", "a rare value", None]
    other["rooms"] = [None, *other["rooms"][1:]]  # none was missing in training
    np.testing.assert_array_equal(transformed(restored, other), transformed(fitted, other))
    transformer, x = reference(columns, [0, 2, 3], [1, 5])
    transformer.fit(x[data._split(None, 200, 0)[0]])
    _, x = reference(other, [0, 2, 3], [1, 5])
    x[0, 2] = np.nan
    theirs = transformer.transform(x).astype(np.float32)
    np.testing.assert_array_equal(transformed(restored, other), theirs)


def test_only_the_training_part_is_learnt_from():
    columns = messy_columns(3)
    _, test = data._split(None, 200, 0)
    first = data.prepare_table(read_table(write_table(columns)), None, 0).preparation
    for row in test:
        columns["size"][row] = 1e9
        columns["color"][row] = "only in the test part"
    second = data.prepare_table(read_table(write_table(columns)), None, 0).preparation
    assert (second.columns, second.mean, second.scale) == (first.columns, first.mean, first.scale)


def test_numbers_alone_stay_as_they_were():
    random = np.random.default_rng(0)
    columns = {name: random.standard_normal(100).tolist() for name in "abcd"}
    write_table(columns)
    one = data.from_file(Path("d.csv"), None, 0)
    other = data.from_file(Path("d.csv"), None, 0, prepared=False)
    torch.testing.assert_close(one.x_train, other.x_train, rtol=1e-6, atol=1e-6)
    assert torch.equal(one.y_train, other.y_train)
    assert other.preparation.is_plain
    assert not one.preparation.is_plain


def test_large_tables_are_made_in_parts(monkeypatch):
    columns = messy_columns(5)
    fitted = data.prepare_table(read_table(write_table(columns)), None, 0).preparation
    whole = transformed(fitted, columns)
    monkeypatch.setattr(preparation, "_CHUNK_ROWS", 7)
    np.testing.assert_array_equal(transformed(fitted, columns), whole)


def test_damaged_preparations_are_refused():
    fitted = data.prepare_table(read_table(write_table(messy_columns(0))), None, 0).preparation
    good = json.loads(fitted.to_json())
    for change in (
        {"format": 2},
        {"mean": good["mean"][1:]},
        {"scale": [0.0] * len(good["scale"])},
        {"mean": ["1"] * len(good["mean"])},
        {"columns": [{"kind": "code", "name": "a"}]},
        {"columns": [{"kind": "text", "name": "a", "categories": [], "rare": False}]},
        {"columns": None},
        {"extra": 1},
        {"target": 3},
    ):
        with pytest.raises(ValueError, match="its preparation"):
            Preparation.from_json(json.dumps({**good, **change}))
    for text in ("", "[]", "{}", "null"):
        with pytest.raises(ValueError, match="its preparation"):
            Preparation.from_json(text)
