"""The same bits in whatever order a GPU runs the programs of a launch, and planted races found.

That each program's code keeps the order of its own accesses is for ``tests/compiled`` to say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch

from twolayer_kernels.backends.triton import arrivals, layers, narrow, tiles

from ..comparing import assert_same_bits
from ..problems import Results, fused, randoms
from ..shapes import Shape
from . import schedules
from .forcing import HOPPER, NARROW_KERNELS, SMALL, Force

pytestmark = pytest.mark.usefixtures("poisoned_memory")

PARTS = 3


class Case(NamedTuple):
    """A call, and the kernels that it launches."""

    run: Callable[[Force], Results]
    kernels: set[str]


def _general(force: Force, **options) -> Results:
    force.path("general")
    force.device(90, 3)
    for kernel in tiles.KERNELS:
        force.tile(kernel, SMALL[kernel], PARTS if kernel == "wgrad" else 1)
    return fused(randoms(Shape(200, 40, 150, 20), torch.float32, seed=1), "triton", **options)


def _one_layer(force: Force) -> Results:
    return fused(randoms(Shape(150, 40, 130, 0), torch.float32, op="linear_relu", seed=2), "triton")


def _added(force: Force, parts: int) -> Results:
    """A weight's gradient added to what is there."""
    force.tile("wgrad", SMALL["wgrad"], parts)
    problem = randoms(Shape(200, 40, 66, 20), torch.float32, seed=3)
    total = torch.full((20, 40), 0.3)
    layers.weight_gradient(problem.grad_out, problem.inputs["x"], add_to=total)
    return {"total": total}


def _long_column_sums(force: Force) -> Results:
    force.device(90, 132)
    source = randoms(Shape(3000, 40, 66, 20), torch.float32, seed=5).grad_out
    return {"sums": layers.column_sums(source)}


def _narrow(force: Force) -> Results:
    force.path("narrow")
    for kernel in NARROW_KERNELS:
        force.narrow_tile(kernel, tiles.narrow_tiles_for(kernel, "tf32", HOPPER)[0], PARTS)
    return fused(randoms(Shape(150, 30, 70, 10), torch.float32, seed=4), "triton")


CASES = {
    "layer by layer": Case(_general, {"product_kernel", "sum_parts_kernel", "column_sums_kernel"}),
    "column sums in parts": Case(_long_column_sums, {"column_sums_kernel"}),
    "the second bias alone": Case(
        partial(_general, needs=("b2",)), {"product_kernel", "column_sums_kernel"}
    ),
    "one layer": Case(_one_layer, {"product_kernel", "masked_kernel", "sum_parts_kernel"}),
    "added to main_grad": Case(partial(_added, parts=1), {"product_kernel"}),
    "added in parts": Case(partial(_added, parts=PARTS), {"product_kernel", "sum_parts_kernel"}),
    "narrow": Case(_narrow, {"narrow_forward_kernel", "narrow_backward_kernel"}),
}
ORDERS = {
    "backwards": lambda: [schedules.backwards],
    "shuffled": lambda: map(schedules.shuffled, range(4)),
    "interleaved": lambda: map(schedules.interleaved, range(8)),
}


def under(schedule: schedules.Schedule, run: Callable[[], Results]) -> Results:
    with schedules.scheduled(schedule):
        return run()


def check_same_bits(orders, run: Callable[[], Results]) -> None:
    usual = under(schedules.in_order, run)
    for schedule in orders():
        for name, actual in under(schedule, run).items():
            assert_same_bits(name, actual, usual[name])


@pytest.mark.parametrize("orders", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_same_bits_in_every_order(force, case, orders):
    check_same_bits(orders, partial(case.run, force))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_kernels_of_each_case(force, case):
    with schedules.scheduled(schedules.in_order) as launched:
        case.run(force)
    assert launched == case.kernels


def test_the_usual_order_is_the_interpreters_own(force):
    run = partial(_narrow, force)
    usual = under(schedules.in_order, run)
    for name, actual in run().items():
        assert_same_bits(name, actual, usual[name])


tl = narrow.tl


def _the_last_part_is_last(arrived, parts):
    """Right as long as parts run in their order."""
    axis = 1 if tl.num_programs(1) > 1 else 0
    return tl.program_id(axis) % parts == parts - 1


def _counted_in_two_steps(arrived, parts):
    """Two that read the counter before either writes it: nobody is last."""
    before = tl.load(arrived)
    last = before == parts - 1
    tl.store(arrived, 0 if last else before + 1)
    return last


def _counted_before_the_store(acc, target, row, col, shares, share, counter, *block):
    """The last one adds shares that are still to be stored."""
    last = narrow.is_last(shares.arrived + counter, shares.parts)
    narrow._store(_share(target, shares, share, shares.part), row, col, acc, *block)
    if last:
        _add_shares(range(_number(shares.parts)), target, row, col, shares, share, *block)


def _begins_with_its_own(acc, target, row, col, shares, share, counter, *block):
    """The sum begins with the share of whoever is last."""
    narrow._store(_share(target, shares, share, shares.part), row, col, acc, *block)
    if narrow.is_last(shares.arrived + counter, shares.parts):
        first = _number(shares.part)
        order = [first, *(p for p in range(_number(shares.parts)) if p != first)]
        _add_shares(order, target, row, col, shares, share, *block)


def _number(value) -> int:
    return int(value.handle.data.item())


def _share(target, shares, share, part) -> narrow.Matrix:
    data = shares.data + share + part * shares.size
    return narrow.Matrix(data, target.cols, 1, target.rows, target.cols)


def _add_shares(order, target, row, col, shares, share, *block):
    total = tl.zeros(block, tl.float32)
    for p in order:
        total += narrow._load(_share(target, shares, share, p), row, col, *block)
    narrow._store(target, row, col, total, *block)


class Race(NamedTuple):
    name: str  # of a function in narrow.py
    faulty: Callable
    found_by: str  # the first of ORDERS that shows it


RACES = {
    "the last part adds up": Race("is_last", _the_last_part_is_last, "backwards"),
    "a sum in the order of arrival": Race("_finish_part", _begins_with_its_own, "backwards"),
    "a counter that is not atomic": Race("is_last", _counted_in_two_steps, "interleaved"),
    "counted before the store": Race("_finish_part", _counted_before_the_store, "interleaved"),
}


@pytest.mark.parametrize("race", RACES.values(), ids=RACES)
def test_a_planted_race_is_found(force, monkeypatch, race):
    """And by no order before the one that is meant to find it."""
    monkeypatch.setattr(narrow, race.name, race.faulty)
    run = partial(_narrow, force)
    for kind, orders in ORDERS.items():
        if kind == race.found_by:
            with pytest.raises(AssertionError, match=r"other bits|arrival counters"):
                check_same_bits(orders, run)
            break
        check_same_bits(orders, run)
    arrivals.forget()
