"""Products that torch's library runs, where it was measured faster."""

from __future__ import annotations

import pytest
import torch

from twolayer_kernels.backends.triton import layers, products, tiles, tuning
from twolayer_kernels.backends.triton.launch import device_of

from ..problems import check_exact, fused, integers
from ..shapes import Shape

SHAPE = Shape(130, 20, 30, 40)
NAME = device_of(torch.empty(0)).name
CPU = torch.device("cpu")


@pytest.fixture
def ran(monkeypatch):
    """The kinds of our products that are run."""
    kinds, product = [], layers.product
    monkeypatch.setattr(layers, "product", lambda *a, **k: kinds.append(a[0]) or product(*a, **k))
    return kinds


def row(work, ours=2.0, theirs=1.0, sizes=(130, 30, 20)):
    if work == "weight_gradient":
        sizes = (30, 20, 130)
    return products.Row(work, "16bit", *sizes, ours, theirs)._asdict()


def tuned(*rows):
    tuning.write({"products": list(rows)}, tiles.tuned_table_path(NAME))


def run(force, **options):
    force.path("general")
    problem = integers(SHAPE, torch.float16, seed=1)
    check_exact(problem, fused(problem, "triton", **options))


@pytest.mark.parametrize("work", products.WORKS)
def test_each_work_can_be_torchs(tuned_tables, force, ran, work):
    run(force)
    ours = sorted(ran)
    assert len(ours) == 6
    ran.clear()
    tuned(row(work))
    run(force)
    assert len(ran) == 6 - (2 if work == "weight_gradient" else 1)


def test_all_of_them_can_be(tuned_tables, force, ran):
    tuned(*map(row, products.WORKS))
    run(force)
    assert ran == []


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("linear", ours=1.0, theirs=1.0)],
        [row("linear_relu")],
        [row("linear") | {"precision": "tf32"}],
        [row("linear", sizes=(130 << 4, 40, 30))],
        [row("linear", sizes=(130, 40, 60)), row("linear", ours=1.0, sizes=(130, 40, 30))],
    ],
    ids=["none", "as fast", "another work", "another precision", "too far", "not the nearest"],
)
def test_without_a_faster_one_alike_ours_runs(tuned_tables, rows):
    tuned(*rows)
    assert not products.torch_is_faster(NAME, "linear", "16bit", 130, 40, 30)


def test_where_bits_must_not_depend_on_the_run_ours_runs(tuned_tables, monkeypatch):
    tuned(row("linear"))
    assert products.torch_is_faster(NAME, "linear", "16bit", 130, 30, 20)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert not products.torch_is_faster(NAME, "linear", "16bit", 130, 30, 20)


def test_autocast_around_a_backward_changes_no_dtype(tuned_tables):
    """What comes to a product is in the dtype that it is to be computed in."""
    grad, w = torch.full((4, 3), 1.001), torch.full((3, 2), 1.0)
    with products.chosen(torchs=True), torch.autocast("cpu", torch.bfloat16):
        found = layers.input_gradient(grad, w)
    assert found.dtype == torch.float32
    assert torch.equal(found, grad @ w)


def test_a_gradient_that_is_added_somewhere_is_ours(ran):
    grad, x = torch.ones(4, 3), torch.ones(4, 2)
    with products.chosen(torchs=True):
        layers.weight_gradient(grad, x, add_to=torch.zeros(3, 2))
    assert ran == ["wgrad"]


def test_nan_and_zero_are_treated_alike(tuned_tables):
    x, w = torch.tensor([[float("nan"), 1.0], [-1.0, 0.0]]), torch.eye(2)
    with products.chosen(torchs=True):
        a = layers.linear(x, w, None, relu=True)
        dh, grad_b = layers.hidden_gradient(torch.ones(2, 2), w, a, True)
    assert torch.equal(a.isnan(), torch.tensor([[True, True], [False, False]]))
    assert torch.equal(dh, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert torch.equal(grad_b, torch.tensor([1.0, 1.0]))


def test_the_tuner_measures_both_sides_of_each_product(tuned_tables, ran, monkeypatch):
    sides = []

    def measure(call):
        before = len(ran)
        call()
        sides.append("ours" if len(ran) > before else "torch")
        return 1e-3

    monkeypatch.setattr(tuning, "MODES", (("16bit", torch.float16),))
    rows = tuning.compare_products(CPU, measure, ((50, 20, 30, 40),))
    assert sides == ["ours", "torch"] * 5
    assert [row["work"] for row in rows] == list(products.WORKS)
    sizes = [(row["m"], row["n"], row["k"]) for row in rows]
    assert sizes == [(50, 30, 20), (50, 40, 30), (50, 30, 40), (50, 20, 30), (30, 20, 50)]
    assert {row["ours"] for row in rows} == {1000.0}


def test_a_product_that_fails_loses_no_other(tuned_tables, monkeypatch):
    def measure(call):
        if call.func is layers.input_gradient:
            raise RuntimeError("out of\nmemory")
        return 1e-3

    said, kept = [], []
    monkeypatch.setattr(tuning, "MODES", (("16bit", torch.float16),))
    rows = tuning.compare_products(
        CPU, measure, ((50, 20, 30, 40),), said.append, lambda rows: kept.append(len(rows))
    )
    assert kept == [1, 2, 3, 4]
    assert [row["work"] for row in rows] == [w for w in products.WORKS if w != "input_gradient"]
    assert "input_gradient 50x20x30 16bit: RuntimeError: out of memory" in said
