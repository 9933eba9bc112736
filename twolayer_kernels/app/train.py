"""``twolayer train``: the jobs it runs, what it shows meanwhile, and what it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import checkpoint, data, picture, told, words
from .failures import BadInput
from .machine import describe_backend, set_threads
from .outputs import check_writable, is_same_file, make_folder
from .preparation import Preparation
from .training import Config, Training

REGRESSION = Config(hidden_features=100, batch_size=64, lr=1e-4, seed=0, loss="mse_sum")
REGRESSION_STEPS = 500
PICTURE = "train.png"
FIT_NOTE = (
    "fit: a call for each round of epochs; its time is the mean step of a whole call, with taking"
    " batches out of the data, which the other rows leave out."
)


@dataclass(frozen=True)
class Options:
    """The command's options; ``None`` is the default, or on ``resume`` the checkpoint's own."""

    data: Path | None
    target: str | None
    hidden: int | None
    epochs: int
    batch_size: int | None
    lr: float | None
    seed: int | None
    threads: int | None
    backend: str | None
    out: Path
    save: Path | None
    resume: Path | None
    prepare: bool | None = None
    text: tuple[str, ...] | None = None
    regression: bool = False


_CONFIG_NAMES = {
    "hidden": "hidden_features",
    "batch_size": "batch_size",
    "lr": "lr",
    "seed": "seed",
}


def _load_data(options: Options, seed: int) -> data.Data:
    if options.data is None:
        return data.digits(seed)
    return data.from_file(
        options.data,
        options.target,
        seed,
        prepared=options.prepare is not False,
        text=options.text or (),
        regression=options.regression,
    )


def _training(samples: data.Data, config: Config, backend: str | None) -> Training:
    try:
        return Training(samples, config, backend)
    except RuntimeError as error:  # torch's word for a lack of memory
        line = str(error).splitlines()[0]
        raise BadInput(f"--hidden {config.hidden_features}: {line}") from error


def _fresh(options: Options) -> Training:
    config = Config(
        hidden_features=options.hidden or 256,
        batch_size=options.batch_size or 64,
        lr=options.lr or 1e-3,
        seed=options.seed or 0,
        loss="",
    )
    samples = _load_data(options, config.seed)
    loss = "cross_entropy" if samples.task == "classification" else "mse"
    return _training(samples, replace(config, loss=loss), options.backend)


def _resumed(options: Options, path: Path, console: Console) -> Training:
    content = checkpoint.load(path)
    config = checkpoint.config_of(path, content)
    for name, config_name in _CONFIG_NAMES.items():
        asked, saved = getattr(options, name), getattr(config, config_name)
        if asked is not None and asked != saved:
            option = "--" + name.replace("_", "-")
            raise BadInput(f"{path}: was trained with {option} {saved}, got {option} {asked}")
    if content["epoch"] >= options.epochs:
        raise BadInput(
            f"{path}: has {content['epoch']} epochs already;"
            f" --epochs is the total and must be more, got {options.epochs}"
        )
    trained_on = content["data"].get("name")
    if options.data is None and trained_on != "digits":
        raise BadInput(f"{path}: was trained on {trained_on}; name that file with --data")
    preparation = checkpoint.preparation_of(path, content)
    options = _with_target(_as_prepared(options, path, preparation), path, preparation)
    regression = content["data"].get("task") == "regression"
    if options.regression and not regression:
        raise BadInput(f"{path}: was trained on classes, got --regression")
    options = replace(options, regression=regression)
    training = _training(_load_data(options, config.seed), config, options.backend)
    checkpoint.restore(path, content, training)
    threads = content["config"].get("threads")
    if threads != torch.get_num_threads():
        console.print(
            f"note: {path} was trained on {threads} threads, this run has"
            f" {torch.get_num_threads()}: the same bits are not promised",
            style="yellow",
        )
    return training


def _as_prepared(options: Options, path: Path, saved: Preparation | None) -> Options:
    """The options with the checkpoint's own preparation in the place of those not given."""
    prepared = saved is not None and not saved.is_plain
    text = tuple(saved.text) if saved is not None else ()
    if options.prepare not in (None, prepared):
        names = ("--no-prepare", "--prepare")
        asked = names[bool(options.prepare)]
        raise BadInput(f"{path}: was trained with {names[prepared]}, got {asked}")
    if options.text is not None and set(options.text) != set(text):
        raise BadInput(
            f"{path}: was trained with --text {', '.join(text) or 'for no column'},"
            f" got {', '.join(options.text)}"
        )
    return replace(options, prepare=prepared, text=text)


def _with_target(options: Options, path: Path, saved: Preparation | None) -> Options:
    """The options with the target that the checkpoint was trained to predict."""
    if saved is None or not saved.target:
        return options
    if options.target not in (None, saved.target):
        raise BadInput(
            f"{path}: was trained with --target {saved.target}, got --target {options.target}"
        )
    # A number that is named could be taken for a header's; the last column needs no name.
    if not saved.header and saved.target == str(len(saved.columns) + 1):
        return options
    return replace(options, target=saved.target)


def _check_outputs(options: Options) -> None:
    if options.out.exists() and not options.out.is_dir():
        raise BadInput(f"{options.out}: --out must be a folder")
    if options.save is not None and options.save.is_dir():
        raise BadInput(f"{options.save}: --save must be a file, this is a folder")
    if options.save is not None:
        if options.data is not None and is_same_file(options.save, options.data):
            raise BadInput(f"{options.save}: --save would overwrite the table that is read")
        if options.save.resolve() == (options.out / PICTURE).resolve():
            raise BadInput(f"{options.save}: --save is where the picture goes")
    for option in ("target", "text"):
        if getattr(options, option) is not None and options.data is None:
            raise BadInput(f"--{option} names a column of the file of --data, which is missing")


def _make_folders(options: Options) -> None:
    for file in (options.out / PICTURE, *([options.save] if options.save else [])):
        make_folder(file.parent)
        check_writable(file)


def _score(training: Training, score: float) -> str:
    return f"{score:.2%}" if training.data.task == "classification" else f"{score:.4f}"


def _show_progress(
    training: Training, epochs: int, progress: Progress, save: Path | None = None
) -> None:
    """Trains to ``epochs``; the bar shows the fused network's loss and score."""
    name = escape(training.data.short_name)
    task = progress.add_task(name, total=epochs, completed=training.epoch, loss="", score="")
    for epoch in training.run(epochs):
        progress.update(
            task,
            completed=epoch,
            loss=f"loss {words.loss(training.fused.losses[-1])}",
            score=f"{training.data.score_name} {_score(training, training.fused.score)}",
        )
        if save is not None:
            checkpoint.save(save, training)


def _make_table(trainings: list[Training]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("job", no_wrap=True)
    table.add_column("network", no_wrap=True)
    table.add_column("last\nloss", justify="right")
    table.add_column("score", no_wrap=True)
    table.add_column("time\nus/step", justify="right")
    table.add_column("plain /\nthis", justify="right")
    for training in trainings:
        plain = training.plain
        for label, side in training.sides.items():
            first = side is plain
            seconds = side.stopwatch.median()
            table.add_row(
                escape(training.data.short_name) if first else "",
                label,
                words.loss(side.losses[-1]),
                f"{training.data.score_name} {_score(training, side.score)}",
                words.microseconds(seconds),
                "" if first else words.ratio(plain.stopwatch.median(), seconds),
                end_section=side is training.fitted,
            )
    return table


def train(options: Options, console: Console) -> None:
    """Runs the jobs; prints the table; writes the picture and, where asked for, the checkpoint.

    Raises:
        BadInput: a file or an option cannot be used; nothing is written then.
        RunFailed: a training came to nothing.
    """
    set_threads(options.threads)
    _check_outputs(options)
    kernels = describe_backend("cpu", torch.float32, options.backend)
    if options.resume is None:
        trainings = [_fresh(options)]
    else:
        trainings = [_resumed(options, options.resume, console)]
    if options.data is None and options.resume is None:
        seed = trainings[0].config.seed
        regression = data.tutorial_regression(seed)
        trainings.append(Training(regression, replace(REGRESSION, seed=seed), options.backend))
    main = trainings[0]
    _make_folders(options)
    console.print(
        f"{main.data.short_name}: {len(main.data.x_train)} training and"
        f" {len(main.data.x_test)} test samples, {main.data.in_features} features,"
        f" {main.config.hidden_features} hidden, {main.data.out_features} outputs",
        highlight=False,
        markup=False,
    )
    told.show(main.data, console)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[score]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        _show_progress(main, options.epochs, progress, options.save)
        for other in trainings[1:]:
            _show_progress(other, REGRESSION_STEPS, progress)

    threads = torch.get_num_threads()
    console.print()
    console.print(
        f"same initial weights, same batches; fused by {kernels}, threads: {threads}",
        highlight=False,
        markup=False,
    )
    console.print(_make_table(trainings))
    console.print(FIT_NOTE, style="dim", highlight=False)
    path = options.out / PICTURE
    footer = f"fused by {kernels}, threads: {threads}, torch {torch.__version__}"
    picture.draw(trainings, footer, path)
    console.print(f"picture: {path}", highlight=False, markup=False, soft_wrap=True)
    if options.save is not None:
        console.print(f"checkpoint: {options.save}", highlight=False, markup=False, soft_wrap=True)
