"""The ``twolayer`` command: runs one, and turns each way to fail into a line and an exit status."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

# The packages of the cli extra, under the names they are imported by.
_EXTRA = ("typer", "rich", "sklearn", "matplotlib", "pyarrow")

# What typer makes of Ctrl-C.
_INTERRUPTED = 130


def _fail(line: str, status: int) -> int:
    print(f"twolayer: {line}", file=sys.stderr)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; default ``sys.argv[1:]``.

    Returns:
        The exit status: 0, 1 for a run that failed or was stopped, 2 for bad input.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that it cannot show is no failure
            stream.reconfigure(errors="replace")
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _EXTRA:
            return _fail(f"needs {package}: pip install 'twolayer_kernels[cli]'", 2)
        if package in ("torch", "numpy"):
            return _fail(f"needs {package}: pip install {package}", 2)
        raise
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        with suppress(OSError):  # what is left to be shown fits as little
            sys.stdout.close()
        return _fail(f"{error.filename or 'standard output'}: {error.strerror}", 1)


def _run(arguments: Sequence[str] | None) -> int:
    import typer

    from .app.commands import app
    from .app.failures import BadInput, RunFailed

    # The base of every usage error; click's, or that of typer's own copy of click.
    usage_error: Any = typer.BadParameter.__bases__[0]
    try:
        status = app(
            args=None if arguments is None else list(arguments),
            prog_name="twolayer",
            standalone_mode=False,
        )
    except BadInput as error:
        return _fail(str(error), 2)
    except RunFailed as error:
        return _fail(str(error), 1)
    except usage_error as error:
        line = error.format_message()
        return _fail(line, 2) if line else 2  # no command named: the help is shown already
    except (typer.Abort, KeyboardInterrupt):
        status = _INTERRUPTED
    if status == _INTERRUPTED:
        return _fail("stopped", 1)
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
