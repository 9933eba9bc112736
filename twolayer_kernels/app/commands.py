"""The options of each command. Nothing heavy loads until a command runs, so help is quick."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .failures import BadInput

app = typer.Typer(
    help="Fused Linear -> ReLU -> Linear: train, compare, look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class FloatType(StrEnum):
    float32 = "float32"
    float64 = "float64"


Backend = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Backend of the fused side: cpu, triton, torch or reference. Default: the best one.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=1024, help="Threads of every library. Default: each library's own."
    ),
]
MAX_SEED = 2**63 - 1
MAX_HIDDEN = 10**7


@app.command()
def train(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your samples: a table (.csv, .tsv, .txt, each also .gz, or .parquet) with the"
            " target in its last column, or .npz with arrays x and y."
            " Integer or text targets: classification; decimal ones: regression."
            " Without it: handwritten digits, then the tutorials' regression.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="NAME", help="The table's column that is the target.")
    ] = None,
    regression: Annotated[
        bool, typer.Option("--regression", help="Whole-number targets are quantities, not classes.")
    ] = False,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A column of numbers to take as text, such as a code; may be given again.",
        ),
    ] = None,
    prepare: Annotated[
        bool | None,
        typer.Option(
            "--prepare/--no-prepare",
            help="Make features of text, truth values and missing numbers, or refuse them."
            " Default: make.",
        ),
    ] = None,
    hidden: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=MAX_HIDDEN, help="Hidden features. Default: 256."),
    ] = None,
    epochs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Epochs in all, those before --resume included.")
    ] = 20,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Samples per step. Default: 64.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="RATE", help="Adam's learning rate. Default: 0.001.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=MAX_SEED, help="Of split, weights and batches. Default: 0."
        ),
    ] = None,
    threads: Threads = None,
    backend: Backend = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the picture goes.")] = Path(
        "out"
    ),
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a checkpoint here as training goes on."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Go on from this checkpoint, to the same bits as an unbroken run;"
            " options not given are the checkpoint's.",
        ),
    ] = None,
) -> None:
    """Train the fused network, and beside it from the same weights the plain one and one by fit."""
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        raise BadInput(f"--lr must be a number above 0, got {lr}")
    from rich.console import Console

    from . import train as room

    options = room.Options(
        data=data,
        target=target,
        hidden=hidden,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        threads=threads,
        backend=backend,
        out=out,
        save=save,
        resume=resume,
        regression=regression,
        prepare=prepare,
        text=tuple(text) if text else None,
    )
    room.train(options, Console())


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="What train --save wrote.")],
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="The rows to predict: a table with the columns of the one that was trained on,"
            " in any order, with or without the target; or .npz with the array x.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where the predictions go, as .csv.")
    ] = Path("predictions.csv"),
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write each class's probability too.")
    ] = False,
    threads: Threads = None,
    backend: Backend = None,
) -> None:
    """Predict the rows of a table with a network that train --save kept.

    One line for each row, in the table's order: a class's label, or a number in the target's units.
    """
    from rich.console import Console

    from . import predict as room

    room.predict(room.Options(model, table, out, probabilities, threads, backend), Console())


@app.command()
def ladder(
    rung: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this rung; may be given again. Default: all."),
    ] = None,
    steps: Annotated[
        int, typer.Option(metavar="N", min=1, help="Training steps of each rung.")
    ] = 500,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, max=MAX_SEED, help="Of data, weights and choices.")
    ] = 0,
    dtype: Annotated[FloatType, typer.Option(help="Of data and weights.")] = FloatType.float32,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Of the torch rungs: cpu, cuda, ...")
    ] = "cpu",
    backend: Backend = None,
    threads: Threads = None,
) -> None:
    """Every system of the tutorials beside its fused twin and fit: losses, distance, time per step.

    The exit status is 1 if a pair of loss curves is further apart than its budget.
    """
    from rich.console import Console

    from .ladder import rungs, table

    try:
        chosen = rungs.named(rung or [])
    except ValueError as error:
        raise BadInput(str(error)) from error
    table.climb(
        chosen,
        steps=steps,
        seed=seed,
        dtype_name=dtype.value,
        device=device,
        backend=backend,
        threads=threads,
        console=Console(),
    )


@app.command()
def info() -> None:
    """Versions, instruction set, threads, and which kernel serves which dtype."""
    from rich.console import Console

    from .info import show

    show(Console())


@app.command()
def tune() -> None:
    """Measure this machine's GPU: its tiles, and where the kernels beat torch's. Some minutes."""
    from .tune import tune as measure

    measure()
