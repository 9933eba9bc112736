"""Faults planted in the kernels, each of which the comparisons must find."""

from __future__ import annotations

import pytest
import torch

from twolayer_kernels.backends.triton import arrivals, layers, narrow, product, tiles, two_layers

from ..problems import check_budget, check_exact, fused, integers, randoms
from ..shapes import Shape
from .forcing import HOPPER

pytestmark = pytest.mark.usefixtures("poisoned_memory", "nothing_prepared")


@pytest.fixture
def nothing_prepared():
    """A launch that was prepared with a fault would outlive it."""
    yield
    two_layers.forget_prepared()


SHAPE = Shape(130, 20, 300, 20)


def _columns_swapped(acc, rows, width):
    return product_halves(acc, rows, width)[::-1]


def _next_row(source, row, *rest):
    return narrow_load(source, row + 1, *rest)


def _first_is_last(arrived, parts):
    before = narrow.tl.atomic_add(arrived, 1)
    if before == parts - 1:
        narrow.tl.store(arrived, 0)
    return before == 0


def _always_the_first_tile(tile, *rest):
    return tile_position(tile * 0, *rest)


def _half_of_the_rows(t):
    return column_sums(t[::2])


product_halves, tile_position = product._halves, product._tile_position
narrow_load, column_sums = narrow._load, layers.column_sums

FAULTS = {
    "halves of a tile swapped": ("general", product, "_halves", _columns_swapped),
    "one tile computed for all": ("general", product, "_tile_position", _always_the_first_tile),
    "half of a sum for the bias": ("general", layers, "column_sums", _half_of_the_rows),
    "a column too many in a block": ("general", layers, "alignment", lambda *sizes: 16),
    "the next row": ("narrow", narrow, "_load", _next_row),
    "the first to arrive adds up": ("narrow", narrow, "is_last", _first_is_last),
    "16 of 20 outputs": ("narrow", two_layers, "padded_out_features", lambda out: 16),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_integers_find_it(force, monkeypatch, fault):
    path, module, name, faulty = FAULTS[fault]
    force.path(path)
    for kernel in tiles.KERNELS:
        in_pieces = max(tiles.tiles_for(kernel, "16bit", HOPPER), key=lambda tile: tile.pieces)
        force.tile(kernel, in_pieces)
    problem = integers(SHAPE, torch.float32, seed=1)
    check_exact(problem, fused(problem, "triton"))
    monkeypatch.setattr(module, name, faulty)
    two_layers.forget_prepared()
    results = fused(problem, "triton")
    with pytest.raises(AssertionError, match="not equal"):
        check_exact(problem, results)


def test_the_budget_finds_a_sum_in_half_precision(force, monkeypatch):
    force.path("narrow")
    store = narrow._store

    def rounded(target, row, col, value, *block):
        store(target, row, col, value.to(narrow.tl.float16), *block)

    monkeypatch.setattr(narrow, "_store", rounded)
    problem = randoms(Shape(33, 70, 65, 10), torch.float32, seed=2)
    with pytest.raises(AssertionError, match="over the budget"):
        check_budget([problem], [fused(problem, "triton")])


def test_counters_left_behind_are_found(force, monkeypatch):
    def without_reset(arrived, parts):
        return bool(narrow.tl.atomic_add(arrived, 1) == parts - 1)

    force.path("narrow")
    monkeypatch.setattr(narrow, "is_last", without_reset)
    problem = integers(Shape(33, 70, 65, 10), torch.float32, seed=3)
    with pytest.raises(AssertionError, match="arrival counters"):
        fused(problem, "triton")
    arrivals.forget()
