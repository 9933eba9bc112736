"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .failures import BadInput


def _umask() -> int:
    """What the process keeps from others; to be read it must be set."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def whole_file(path: Path) -> Iterator[str]:
    """The name of an unfinished file beside ``path``, which takes its place at the end.

    Where anything fails, the file that was there stays.

    Raises:
        BadInput: the path cannot be written.
    """
    try:
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        os.close(handle)
        os.chmod(unfinished, 0o666 & ~_umask())  # mkstemp keeps others out
        try:
            yield unfinished
            os.replace(unfinished, path)
        except BaseException:
            os.unlink(unfinished)
            raise
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}") from error


def check_writable(path: Path) -> None:
    """Whether a file may be made there, found out before any work for it.

    Raises:
        BadInput: it may not.
    """
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}") from error


def is_same_file(path: Path, other: Path) -> bool:
    """Whether both are there and one file."""
    return path.exists() and other.exists() and path.samefile(other)


def make_folder(folder: Path) -> None:
    """Makes the folder and those above it.

    Raises:
        BadInput: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be made: {error.strerror or error}") from error
