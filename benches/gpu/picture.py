"""The picture of a run: how much faster ours is than each peer, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .peers import AUTOTUNED, EAGER, GRAPH, OUR_GRAPH, OURS, PRODUCTS
from .results import ratio, seconds

_SERIES = {
    "eager": (EAGER, OURS, "#8a93a0"),
    "torch.compile max-autotune": (AUTOTUNED, OURS, "#d1495b"),
    "eager as a graph (ours too)": (GRAPH, OUR_GRAPH, "#edae49"),
    "bare matrix products": (PRODUCTS, OURS, "#00798c"),
}


def draw(results: dict[str, Any], path: Path) -> str:
    """Writes the picture where matplotlib is installed; says what became of it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "picture: none, matplotlib is not installed"
    rows = [row for row in results["rows"] if seconds(row, OURS) is not None]
    if not rows:
        return "picture: none, no row was measured"
    figure = Figure(figsize=(10, 0.6 * len(rows) + 2), layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(_SERIES)
    for index, (label, (peer, ours, colour)) in enumerate(_SERIES.items()):
        places = [place + index * height for place in range(len(rows))]
        values = [ratio(row, peer, ours) or 0.0 for row in rows]
        axis.barh(places, values, height, label=label, color=colour)
    axis.axvline(1.0, color="black", linewidth=1)
    axis.set_yticks([place + 0.3 for place in range(len(rows))], [row["id"] for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("time of the peer over ours")
    axis.grid(axis="x", alpha=0.3)
    axis.legend()
    trust = "" if results["trustworthy"] else ", TESTS FAILED"
    axis.set_title(f"{results['machine']['name']}, torch {results['machine']['torch']}{trust}")
    figure.savefig(path, dpi=100)
    return f"picture: {path.name}"
