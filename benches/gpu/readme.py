"""The GPU table of the README, from ``benches/results``; ``python3 -m benches.gpu.readme``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import goals
from .peers import AUTOTUNED, COMPILED, DEFAULT, EAGER, GRAPH, OUR_GRAPH, OURS, PRODUCTS
from .report import checks_in_a_line, duration, fixed
from .results import FOLDER, ratio, read, seconds

README = FOLDER.parents[1] / "README.md"
BEGIN, END = "<!-- gpu table -->", "<!-- /gpu table -->"
_NOTHING = (
    "No GPU has been measured yet: the Triton kernels are there, their speed is not known.\n"
    "`make gpu` measures it on a machine with CUDA."
)
_HEADS = ("batch x in x hidden x out", "type", "work", "ours", "TFLOP/s", "default", "eager",
          "compile", "max-autotune", "graphs", "of bare `mm`")  # fmt: skip


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(row: dict[str, Any]) -> str:
    time = seconds(row, OURS)
    assert time is not None
    return _cells(
        [
            " x ".join(map(str, row["shape"])),
            "float32, TF32" if row["tf32"] else row["dtype"],
            row["work"].replace("+", " + "),
            duration(time),
            fixed(row["operations"] / time / 1e12, 1),
            fixed(ratio(row, EAGER, DEFAULT)),
            *(fixed(ratio(row, peer, OURS)) for peer in (EAGER, COMPILED, AUTOTUNED)),
            fixed(ratio(row, GRAPH, OUR_GRAPH)),
            fixed(ratio(row, PRODUCTS, OURS)),
        ]
    )


def _goals(results: dict[str, Any]) -> str:
    found = goals.outcomes(results["rows"])
    missed = [
        f"{one.text} ({'not measured' if one.figure is None else fixed(one.figure)},"
        f" goal {one.sign} {one.bound:g})"
        for one in found
        if not one.reached
    ]
    reached = f"Goals reached: {len(found) - len(missed)} of {len(found)}."
    return f"{reached} Missed: {'; '.join(missed)}." if missed else reached


def _section(results: dict[str, Any], picture: str | None) -> str:
    machine, rows = results["machine"], results["rows"]
    head = (
        f"**{machine['name']}**, CUDA {machine['cuda']}, torch {machine['torch']}, triton"
        f" {machine['triton']}, commit {machine['commit']}, {results['date'][:10]}."
    )
    if not results["trustworthy"]:
        return f"{head} Not all checks passed there ({checks_in_a_line(results)}): no figures."
    measured = [row for row in rows if seconds(row, OURS) is not None]
    missing = len(rows) - len(measured)
    lines = [
        f"{head} Checks: {checks_in_a_line(results)}.",
        "",
        "Times of others over ours; `default`: eager's time over that of the network that names no"
        " backend; `graphs`: both replayed as CUDA graphs; `of bare mm`: time of"
        " the work's matrix products alone over ours.",
        "",
        _cells(_HEADS),
        _cells(["---"] * len(_HEADS)),
        *map(_line, measured),
        "",
        _goals(results) + (f" Rows without a figure of ours: {missing}." if missing else ""),
    ]
    if picture is not None:
        lines += ["", f"![Times of others over ours, {machine['name']}]({picture})"]
    return "\n".join(lines)


def table(folder: Path = FOLDER) -> str:
    """What stands between the markers."""
    sections = []
    for path in sorted(folder.glob("*.json")):
        picture = path.with_suffix(".png")
        there = f"benches/results/{picture.name}" if picture.exists() else None
        sections.append(_section(read(path), there))
    return "\n\n".join(sections) or _NOTHING


def generated(readme: str, folder: Path = FOLDER) -> str:
    """The README with its table made anew."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: needs the lines {BEGIN} and {END}, in this order")
    return f"{before}{BEGIN}\n{table(folder)}\n{END}{after}"


def main() -> None:
    README.write_text(generated(README.read_text()))


if __name__ == "__main__":
    main()
