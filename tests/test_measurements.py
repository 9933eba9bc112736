"""What measurements say of a network: by class of device, with a margin, up to a distance."""

from __future__ import annotations

import json

import pytest

measurements = pytest.importorskip("twolayer_kernels.backends.triton.measurements")

from twolayer_kernels.backends.triton import tiles  # noqa: E402 - after the skip

H100 = "NVIDIA H100 80GB HBM3"
SMALL, LARGE = (64, 64, 64, 4), (8192, 4096, 4096, 4096)


def entry(sizes, ours, theirs):
    return dict(zip(measurements.SIZES, sizes, strict=True)) | {
        "precision": "16bit", "ours": ours, "torch": theirs
    }  # fmt: skip


@pytest.fixture
def tables(tuned_tables, monkeypatch):
    """What ships is that ours is faster on a small network, and slower on a large one."""
    shipped = {"H100": {"against_torch": [entry(SMALL, 10, 30), entry(LARGE, 1000, 900)]}}
    monkeypatch.setattr(measurements, "_shipped", lambda: shipped)
    return tuned_tables


def verdict(sizes, name=H100, precision="16bit"):
    return measurements.verdict(name, precision, *sizes)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        (H100, "H100"),
        ("NVIDIA H100 PCIe", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A10G", "NVIDIA A10G"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"),
        ("interpreter", "interpreter"),
    ],
)
def test_the_class_of_a_device(name, known):
    assert measurements.device_class(name) == known


def test_what_ships_speaks_for_devices_of_the_class_alone(tables):
    for name in (H100, "NVIDIA H100 PCIe"):
        faster, reason = verdict(SMALL, name)
        assert faster
        assert "measured on a device like it (H100): 3.00x as fast" in reason
    for name in ("NVIDIA H200", H100 + " MIG 1g.10gb"):
        faster, reason = verdict(SMALL, name)
        assert not faster
        assert f"not been measured in 16bit on {name}" in reason


def test_the_users_own_measurements_take_the_place_of_those_that_ship(tables):
    path = tiles.tuned_table_path(H100)
    path.write_text(json.dumps({"tiles": [], "against_torch": [entry(SMALL, 10, 9)]}))
    faster, reason = verdict(SMALL)
    assert not faster
    assert f"measured on {H100}: only 0.90x" in reason


def test_a_tuner_that_was_stopped_before_it_compared_takes_nothing_away(tables):
    path = tiles.tuned_table_path(H100)
    path.write_text(json.dumps({"tiles": [], "against_torch": []}))
    assert verdict(SMALL).faster


def test_precisions_that_the_user_has_not_measured_keep_what_ships(tables):
    path = tiles.tuned_table_path(H100)
    others = entry(SMALL, 10, 9) | {"precision": "tf32"}
    path.write_text(json.dumps({"tiles": [], "against_torch": [others]}))
    assert verdict(SMALL).faster
    assert f"measured on {H100}: only 0.90x" in verdict(SMALL, precision="tf32").reason


@pytest.mark.parametrize(("theirs", "faster"), [(103, True), (102.9, False), (100, False)])
def test_ours_is_taken_from_a_margin_on(tables, monkeypatch, theirs, faster):
    shipped = {"H100": {"against_torch": [entry(SMALL, 100, theirs)]}}
    monkeypatch.setattr(measurements, "_shipped", lambda: shipped)
    found = verdict(SMALL)
    assert found.faster is faster
    assert ("at least 1.03x is wanted" in found.reason) is not faster


def test_the_nearest_network_decides(tables):
    assert verdict((128, 128, 32, 4)).faster
    faster, reason = verdict((8192, 2048, 4096, 2048))
    assert not faster
    assert "only 0.90x torch's speed" in reason
    assert "at 8192x4096x4096x4096, the nearest size" in reason


@pytest.mark.parametrize(
    ("sizes", "faster"),
    [
        ((64 << 6, 64, 64, 4), True),
        ((64 << 3, 64 >> 3, 64, 4), True),
        ((64 << 7, 64, 64, 4), False),
        ((64 << 3, 64 >> 4, 64, 4), False),
        ((0, 64, 64, 4), True),
    ],
    ids=str,
)
def test_measurements_speak_up_to_a_distance(tables, sizes, faster):
    found = verdict(sizes)
    assert found.faster is faster
    assert ("7.0 doublings away, and 6 are the most" in found.reason) is not faster


def test_what_ships_can_be_read():
    """Every class is one that a device's name gives, and every row is whole."""
    products = pytest.importorskip("twolayer_kernels.backends.triton.products")
    for known, parts in measurements._shipped().items():
        assert known in (measurements.device_class(name) for name in (known, f"NVIDIA {known}"))
        assert parts["against_torch"]
        rows = [measurements.Row(**entry) for entry in parts["against_torch"]]
        for row in rows + [products.Row(**entry) for entry in parts["products"]]:
            assert row.ours > 0
            assert row.torch > 0


def test_between_the_networks_of_the_tuner_there_is_an_answer():
    tuning = pytest.importorskip("twolayer_kernels.backends.triton.tuning")
    rows = [measurements.Row("16bit", *network, 1.0, 1.0) for network in tuning.NETWORKS]
    for sizes in ((64, 1000, 100, 10), (256, 512, 512, 512), (512, 1024, 4096, 1024)):
        assert min(measurements._distance(row, sizes) for row in rows) <= measurements.FARTHEST
