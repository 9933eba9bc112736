"""The GPU table of the README is what the results in ``benches/results`` give."""

from __future__ import annotations

import pytest

from benches.gpu import peers, readme, results

from .samples import FILE, RED, sample, sample_rows


def write(folder, name=FILE, **changes):
    path = folder / f"{name}.json"
    results.write(path, sample(**changes))
    return path


def test_the_readme_is_what_the_generator_gives():
    text = readme.README.read_text()
    assert readme.generated(text) == text, "run python3 -m benches.gpu.readme"


def test_without_results_it_says_so(tmp_path):
    assert "No GPU has been measured yet" in readme.table(tmp_path)


def test_the_table_of_a_result(tmp_path):
    rows = sample_rows()
    rows[1] |= {"status": "skipped", "peers": {}}
    rows[2]["peers"][peers.AUTOTUNED] = {"error": "RuntimeError: no"}
    path = write(tmp_path, rows=rows)
    text = readme.table(tmp_path)
    assert text.startswith("**NVIDIA Sample 80GB**, CUDA 13.0, torch 2.11.0, triton 3.6.0")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == len(rows) + 1  # the heads, the rule, and all rows but the skipped one
    assert lines[2] == (
        "| 64 x 1000 x 100 x 10 | float32 | forward + backward | 10.1 us | 2.6 | 3.96 | 4.00 |"
        " 3.50 | 1.25 | 1.67 | 0.99 |"
    )
    assert " | 3.50 |  | 1.67 |" in lines[3]
    assert "Goals reached: 9 of 9. Rows without a figure of ours: 1." in text
    assert "![" not in text
    path.with_suffix(".png").touch()
    picture = "](benches/results/nvidia-sample-80gb.png)"
    assert readme.table(tmp_path).endswith(picture)


def test_a_missed_goal_is_named(tmp_path):
    write(tmp_path, rows=sample_rows(products=0.9))
    assert (
        "Goals reached: 8 of 9. Missed: the same, of the bare products' speed (0.89, goal >= "
        in (readme.table(tmp_path))
    )


def test_a_red_run_shows_no_figures(tmp_path):
    write(tmp_path, tests=RED, trustworthy=False)
    text = readme.table(tmp_path)
    assert "Not all checks passed there (exact: 20 exact, 0 failed; tests: 3 failed, 697" in text
    assert "|" not in text


def test_machines_stand_one_after_the_other(tmp_path):
    write(tmp_path, "b", machine={**sample()["machine"], "name": "B"})
    write(tmp_path, "a", machine={**sample()["machine"], "name": "A"})
    text = readme.table(tmp_path)
    assert text.index("**A**") < text.index("**B**")


def test_only_what_is_between_the_markers_changes(tmp_path):
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    new = readme.generated(text, tmp_path)
    assert new.startswith(f"before\n{readme.BEGIN}\nNo GPU")
    assert new.endswith(f"\n{readme.END}\nafter\n")
    assert readme.generated(new, tmp_path) == new


def test_a_readme_without_markers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="<!-- gpu table -->"):
        readme.generated("nothing", tmp_path)
