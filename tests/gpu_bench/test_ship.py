"""A tuner's table becomes what ships."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("triton")

from benches.gpu import ship
from twolayer_kernels.backends.triton import launch, measurements, tiles

H100 = launch.Device("NVIDIA H100 80GB HBM3", 90, 132)
ROW = dict(zip(measurements.Row._fields, ("16bit", 64, 64, 64, 4, 10.0, 30.0), strict=True))


def tile(**changes):
    (first, *_) = json.loads((ship._PACKAGE / "tiles.json").read_text())
    return first | {"source": "measured"} | changes


@pytest.fixture
def folder(tmp_path):
    for name in ("tiles.json", "measured.json"):
        shutil.copy(ship._PACKAGE / name, tmp_path)
    return tmp_path


@pytest.fixture
def shipped(folder, monkeypatch, tuned_tables):
    """What the package reads once ``ship`` has written."""

    def read(*tables):
        for table in tables:
            ship.ship(table, folder)
        text = {name: json.loads((folder / f"{name}.json").read_text()) for name in FILES}
        monkeypatch.setattr(measurements, "_shipped", lambda: text["measured"])
        monkeypatch.setattr(tiles, "_shipped", lambda: text["tiles"])

    return read


FILES = ("measured", "tiles")


def table(device=H100.name, rows=(ROW,), measured=()):
    return {"device": device, "versions": {}, "against_torch": list(rows), "tiles": list(measured)}


def test_measured_tiles_take_the_place_of_their_kind(shipped):
    before = {kind: tiles.shipped_tiles_for(*kind, H100) for kind in KINDS}
    shipped(table(measured=[tile(block=[64, 32, 64]), tile(block=[32, 64, 64])]))
    blocks = [t[:3] for t in tiles.tiles_for("linear", "16bit", H100)]
    assert blocks == [(64, 32, 64), (32, 64, 64)]
    for kind in KINDS[1:]:
        assert tiles.tiles_for(*kind, H100) == before[kind]
    b200 = H100._replace(arch=100)
    assert tiles.tiles_for("linear", "16bit", b200)[0].source != "measured"


KINDS = (("linear", "16bit"), ("linear", "tf32"), ("dgrad", "16bit"), ("wgrad", "tf32x3"))


def test_comparisons_decide_for_all_devices_of_the_class(shipped):
    shipped(table(), table("NVIDIA H200"), table(rows=[ROW | {"torch": 20.0}]))
    for name in (H100.name, "NVIDIA H100 PCIe"):
        faster, reason = measurements.verdict(name, "16bit", 64, 64, 64, 4)
        assert faster
        assert "2.00x as fast as torch" in reason
    assert measurements.verdict("NVIDIA H200", "16bit", 64, 64, 64, 4).faster
    assert not measurements.verdict("NVIDIA A100-SXM4-80GB", "16bit", 64, 64, 64, 4).faster


def test_nothing_measured_changes_nothing_that_is_read(folder):
    before = json.loads((folder / "tiles.json").read_text())
    assert ship.ship(table(), folder) == "H100: 1 comparisons, 0 tiles"
    assert json.loads((folder / "tiles.json").read_text()) == before
    assert (folder / "tiles.json").read_text().count("\n") == len(before) + 2


def test_a_table_without_comparisons_is_refused(folder):
    before = (folder / "tiles.json").read_text()
    with pytest.raises(ValueError, match="compares nothing with torch"):
        ship.ship(table(rows=[], measured=[tile()]), folder)
    assert (folder / "tiles.json").read_text() == before
