"""The JSON of a run: where it lies, what is refused, and what an earlier call leaves."""

from __future__ import annotations

import json

import pytest

from benches.gpu import peers, results

from .samples import FILE, MACHINE, figures, sample


def test_another_schema_is_refused(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"schema": 1}))
    with pytest.raises(ValueError, match="schema must be 2, got 1"):
        results.read(path)


def test_results_go_to_out(monkeypatch, tmp_path):
    monkeypatch.setenv("OUT", str(tmp_path))
    assert results.folder() == tmp_path
    monkeypatch.setenv("OUT", "")
    assert results.folder() == results.FOLDER


@pytest.fixture
def folders(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "kept")
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    return tmp_path / "out", tmp_path / "kept"


@pytest.mark.parametrize("place", [0, 1], ids=["out", "kept"])
def test_an_earlier_call_is_found(folders, place):
    path = folders[place] / f"{FILE}.json"
    results.write(path, sample())
    found, said = results.earlier(path.name, MACHINE)
    assert found == results.read(path)
    assert said == path.name


def test_without_an_earlier_call_it_says_so(folders):
    assert results.earlier("x.json", MACHINE) == (None, "no x.json from an earlier call")


@pytest.mark.parametrize("key", ["commit", "torch", "triton"])
def test_an_earlier_call_of_other_code_is_left_alone(folders, key):
    path = folders[0] / f"{FILE}.json"
    results.write(path, sample(machine={**MACHINE, key: "other"}))
    found, said = results.earlier(path.name, MACHINE)
    assert found is None
    assert said == f"{path.name} is of {key} other, this is {MACHINE[key]}"


def test_an_earlier_call_of_another_schema_is_left_alone(folders):
    path = folders[0] / f"{FILE}.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"schema": 1}))
    found, said = results.earlier(path.name, MACHINE)
    assert found is None
    assert "schema must be 2" in said


def test_a_ratio_is_of_times_taken_in_turn_where_there_are_such():
    row = {"peers": {peers.OURS: figures(1.0), peers.EAGER: figures(3.0)}}
    assert results.ratio(row, peers.EAGER, peers.OURS) == 3
    row["peers"][peers.EAGER]["beside"] = {peers.OURS: 1.5}
    assert results.ratio(row, peers.EAGER, peers.OURS) == 2
    del row["peers"][peers.EAGER]["beside"]
    row["peers"][peers.OURS]["beside"] = {peers.EAGER: 4.0}
    assert results.ratio(row, peers.EAGER, peers.OURS) == 4
    assert results.ratio(row, peers.COMPILED, peers.OURS) is None
