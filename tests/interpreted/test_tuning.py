"""The tuner's table: what it holds, that it is used, and that measurements decide who runs."""

from __future__ import annotations

import json

import pytest
import torch

from twolayer_kernels import FusedTwoLayer, TwoLayerNet, dispatch
from twolayer_kernels.backends import triton as backend
from twolayer_kernels.backends.triton import measurements, tiles, tuning
from twolayer_kernels.backends.triton.launch import device_of

CPU = torch.device("cpu")
DEVICE = device_of(torch.empty(0))


def modules(in_features, hidden_features, out_features, **kind):
    plain = TwoLayerNet(in_features, hidden_features, out_features, **kind)
    return FusedTwoLayer.from_linears(plain.linear1, plain.linear2, backend="triton"), plain


def test_tiles_are_ranked_by_what_was_measured(tuned_tables, monkeypatch):
    monkeypatch.setattr(tuning, "PRODUCT", (64, 64, 64))

    def measure(call):
        """A device on which fewer columns of a tile are faster."""
        return 1e-3 * call.keywords["tile"].block_n

    entries = tuning.tune_tiles(CPU, measure)
    table = {"tiles": entries, "against_torch": []}
    tuning.write(table, tiles.tuned_table_path(DEVICE.name))
    for kernel in tiles.KERNELS:
        for precision in ("16bit", "tf32", "tf32x3"):
            tuned = tiles.tiles_for(kernel, precision, DEVICE)
            assert max(tuned, key=lambda tile: tile.rate).block_n == 64
            assert max(tile.rate for tile in tuned) == 1
            assert all(tile.source.startswith("measured on") for tile in tuned)
            blocks = [tile[:2] for tile in tuned]
            assert len(blocks) == len(set(blocks))


def test_a_tile_that_does_not_fit_is_left_out(tuned_tables, monkeypatch):
    import triton

    monkeypatch.setattr(tuning, "PRODUCT", (64, 64, 64))

    def measure(call):
        if call.keywords["tile"].block_m == 128:
            raise triton.OutOfResources(2, 1, "shared memory")
        return 1e-3

    assert {entry["block"][0] for entry in tuning.tune_tiles(CPU, measure)} == {64}


def test_products_run_with_each_candidate(monkeypatch):
    monkeypatch.setattr(tuning, "PRODUCT", (40, 50, 70))
    ran = []

    def measure(call):
        ran.append(call()[0].shape)
        return 1e-3

    monkeypatch.setattr(tuning, "MODES", (("16bit", torch.float16), ("tf32", torch.float32)))
    tuning.tune_tiles(CPU, measure)
    assert ran
    assert set(ran) == {(40, 50)}


def test_the_comparison_measures_both_sides(monkeypatch):
    calls = []

    def measure(call):
        call()
        calls.append(call)
        return 1e-6 * len(calls)

    monkeypatch.setattr(tuning, "MODES", (("tf32x3", torch.float32),))
    rows = tuning.compare_with_torch(CPU, measure, ((3, 4, 5, 6),), modules)
    assert rows == [
        {
            "precision": "tf32x3",
            "batch": 3,
            "in_features": 4,
            "hidden_features": 5,
            "out_features": 6,
            "ours": 1.0,
            "torch": 2.0,
        }
    ]


def failing_where(condition):
    def measure(call):
        if condition(call):
            raise RuntimeError("ptxas\n  failed")
        return 1e-3

    return measure


def test_a_tile_that_fails_is_named_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(tuning, "PRODUCT", (64, 64, 64))
    said = []
    measure = failing_where(lambda call: call.keywords["tile"].block_m == 128)
    assert {entry["block"][0] for entry in tuning.tune_tiles(CPU, measure, said.append)} == {64}
    assert any("RuntimeError: ptxas failed" in line for line in said)
    assert tuning.tune_tiles(CPU, failing_where(lambda call: True)) == []


def test_a_network_that_fails_is_named_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(tuning, "MODES", (("tf32x3", torch.float32),))
    calls, said, kept = [], [], []
    measure = failing_where(lambda call: calls.append(call) or len(calls) == 1)
    rows = tuning.compare_with_torch(
        CPU, measure, ((3, 4, 5, 6), (7, 4, 5, 6)), modules, said.append, kept.append
    )
    assert [row["batch"] for row in rows] == [7]
    assert said[0] == "3x4x5x6 tf32x3: RuntimeError: ptxas failed"
    assert kept == [rows]


def test_a_device_that_failed_ends_the_tuner(monkeypatch):
    """Every later call would fail, too, and say nothing of its tile or network."""

    def synchronize(device):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    gpu, measure, said = torch.device("cuda", 0), failing_where(lambda call: True), []
    for run in (
        lambda: tuning.tune_tiles(gpu, measure, said.append),
        lambda: tuning.compare_products(gpu, measure, ((3, 4, 5, 6),), said.append),
        lambda: tuning.compare_with_torch(gpu, measure, ((3, 4, 5, 6),), modules, said.append),
    ):
        with pytest.raises(RuntimeError, match="illegal memory access"):
            run()
    assert len(said) == 3


def test_operands_that_cannot_be_made_are_named_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(tuning, "PRODUCT", (64, 64, 64))
    make = tuning.operands

    def operands(kernel, dtype, device):
        if kernel == "linear":
            raise torch.OutOfMemoryError("too large")
        return make(kernel, dtype, device)

    monkeypatch.setattr(tuning, "operands", operands)
    said = []
    found = {e["kernel"] for e in tuning.tune_tiles(CPU, lambda call: 1e-3, said.append)}
    assert found == {"dgrad", "wgrad"}
    assert "linear 16bit: OutOfMemoryError: too large" in said


def test_what_was_not_measured_again_is_kept_until_it_is(tuned_tables):
    path = tiles.tuned_table_path("some device")
    assert tuning.read(path) == {part: [] for part in tuning.PARTS}
    before = [
        row(10, 30, batch=b, in_features=4, hidden_features=5, out_features=6) for b in (1, 2)
    ]
    tuning.write(tuning.read(path) | {"against_torch": before}, path)
    again = [before[0] | {"ours": 20}]
    found = tuning.updated("against_torch", tuning.read(path)["against_torch"], again)
    assert found == [again[0], before[1]]
    one = [{"kernel": "linear", "precision": "tf32", "arch": 90, "block": [64, 64, 64]}]
    assert tuning.updated("tiles", [one[0] | {"block": [128, 64, 64]}], one) == one


def row(ours, theirs, **sizes):
    return {"precision": "tf32x3", "ours": ours, "torch": theirs} | sizes


@pytest.fixture
def measured(tuned_tables):
    small = {"batch": 64, "in_features": 64, "hidden_features": 64, "out_features": 4}
    large = {"batch": 8192, "in_features": 4096, "hidden_features": 4096, "out_features": 4096}
    table = {"tiles": [], "against_torch": [row(10, 30, **small), row(1000, 900, **large)]}
    path = tiles.tuned_table_path(DEVICE.name)
    path.write_text(json.dumps(table))
    measurements.forget_tables()


def chosen(batch, in_features, hidden_features, out_features, monkeypatch):
    monkeypatch.setattr(dispatch, "_triton_for", lambda dtype: (backend, ""))
    x = torch.empty(batch, in_features)
    return dispatch.choose_for_cuda(x, in_features, hidden_features, out_features)


def test_the_nearest_measured_network_decides(measured, monkeypatch):
    small = chosen(32, 100, 50, 10, monkeypatch)
    assert small.backend is backend
    assert "3.00x as fast as torch at 64x64x64x4" in small.reason
    large = chosen(8192, 2048, 4096, 1024, monkeypatch)
    assert large.backend.__name__.endswith("backends.torch")
    assert "only 0.90x torch's speed (at least 1.03x is wanted) at 8192x4096" in large.reason


def test_without_measurements_torch_runs_and_says_why(tuned_tables, monkeypatch):
    choice = chosen(64, 64, 64, 4, monkeypatch)
    assert choice.backend.__name__.endswith("backends.torch")
    assert "not been measured" in choice.reason
    assert "twolayer tune" in choice.reason


def test_a_table_is_replaced_in_one_piece(tuned_tables):
    path = tiles.tuned_table_path("some device")
    tuning.write({"tiles": [], "against_torch": []}, path)
    tuning.write({"tiles": [], "against_torch": [1]}, path)
    assert json.loads(path.read_text())["against_torch"] == [1]
    assert [p.name for p in tuned_tables.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((64, 1000, 100, 10), "both layers in one launch"),
        ((16384, 4096, 16384, 4096), "layer by layer"),
    ],
    ids=str,
)
def test_explain_says_which_kernels(sizes, said):
    assert said in backend.describe(torch.float32, sizes)


def narrow_choice(kernel, *sizes):
    return tiles.choose_narrow(kernel, "16bit", DEVICE._replace(multiprocessors=132), *sizes)


def test_a_small_batch_is_shared_by_as_many_programs_as_there_are_steps():
    tile, parts = narrow_choice("narrow_forward", 64, 1000, 100, 10)
    assert parts == tiles.ceil_div(100, tile.block_h)


def test_a_small_batch_takes_blocks_of_few_samples():
    tile, parts = narrow_choice("narrow_forward", 64, 1000, 100, 10)
    assert tile.block_b == 16
    assert tiles.ceil_div(64, tile.block_b) * parts == 28


def test_a_large_batch_takes_the_wide_blocks_that_read_the_input_less_often():
    assert narrow_choice("narrow_forward", 64, 256, 256, 1)[0].block_h == 16
    assert narrow_choice("narrow_forward", 4096, 256, 256, 1)[0].block_h == 64


def test_real_float32_leaves_large_networks_to_the_matrix_units():
    sizes = (4096, 256, 256, 1)
    assert tiles.is_narrow("16bit", *sizes)
    assert not tiles.is_narrow("ieee", *sizes)
    assert tiles.is_narrow("ieee", 64, 1000, 100, 10)
