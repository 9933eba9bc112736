"""The picture of a run: the networks' loss curves, and the time of a step."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .failures import BadInput
from .training import Training

INK = "#2b2f36"
# Of each side: its colour, and its curve's width and style, so that all show where they coincide.
STYLES = {
    "plain torch.nn": ("#b9c0c9", 8, "-"),
    "fused": ("#d1495b", 4, "--"),
    "fit": ("#12455a", 2, ":"),
}


def _shown(name: str) -> str:
    """A name whose bytes may be no text, as text."""
    return name.encode(errors="replace").decode()


def _draw_losses(axes: Axes, training: Training) -> None:
    data = training.data
    for label, side in training.sides.items():
        color, width, style = STYLES[label]
        epochs = range(1, len(side.losses) + 1)
        marker = "o" if len(side.losses) == 1 else None
        axes.plot(
            epochs,
            side.losses,
            color=color,
            linewidth=width,
            linestyle=style,
            label=label,
            marker=marker,
            solid_capstyle="round",
        )
    if min(min(side.losses) for side in training.sides.values()) > 0:
        axes.set_yscale("log")
    score = f"{training.fused.score:.2%}" if data.task == "classification" else None
    score = score or f"{training.fused.score:.4f}"
    title = f"{_shown(data.short_name)}: training loss\n{data.score_name} {score} (fused)"
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    one_step = training.steps_per_epoch == 1
    axes.set_xlabel("step" if one_step else "epoch")
    axes.set_ylabel("loss" if one_step else "mean loss of the epoch")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def _draw_times(axes: Axes, trainings: list[Training]) -> None:
    width = 0.26
    places = range(len(trainings))
    highest = 0.0
    for shift, (name, (color, _, _)) in zip((-1, 0, 1), STYLES.items(), strict=True):
        times = [training.sides[name].stopwatch.median() * 1e6 for training in trainings]
        highest = max(highest, *times)
        bars = axes.bar(
            [place + shift * width for place in places],
            times,
            width,
            color=color,
            label=name,
        )
        axes.bar_label(bars, fmt="%.0f", padding=2, color=INK)
    labels = []
    for training in trainings:
        plain, fused, fitted = (side.stopwatch.median() for side in training.sides.values())
        ratios = f"plain / fused = {plain / fused:.2f}\nplain / fit = {plain / fitted:.2f}"
        labels.append(f"{_shown(training.data.short_name)}\n{ratios}")
    axes.set_xticks(list(places), labels, parse_math=False)
    axes.set_xlim(-0.75, len(trainings) - 0.25)
    axes.set_ylim(0, highest * 1.3)
    axes.set_title("time per training step\nmedian, less is better", fontsize=11)
    axes.set_ylabel("microseconds")
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper left")


def draw(trainings: list[Training], footer: str, path: Path) -> None:
    """Writes the PNG.

    Raises:
        BadInput: the path cannot be written.
    """
    panels = len(trainings) + 1
    figure = Figure(figsize=(4.9 * panels, 4.4), dpi=130, layout="constrained")
    axes = figure.subplots(1, panels)
    for panel, training in zip(axes, trainings, strict=False):
        _draw_losses(panel, training)
    _draw_times(axes[-1], trainings)
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(_shown(footer), fontsize=8, color="#6b7280", parse_math=False)
    try:
        figure.savefig(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}") from error
