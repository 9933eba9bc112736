"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
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

    Where anything fails, the file that was there stays. A link stays one, to the new file; what is
    no file but a device or a pipe is written into.

    Raises:
        BadInput: the path cannot be written.
    """
    try:
        target = path.resolve()
        into = target.exists() and not target.is_file()
        folder = None if into else target.parent
        handle, unfinished = tempfile.mkstemp(dir=folder, prefix=target.name, suffix=".part")
        os.close(handle)
        os.chmod(unfinished, 0o666 & ~_umask())  # mkstemp keeps others out
        try:
            yield unfinished
            if into:
                with open(unfinished, "rb") as whole, target.open("wb") as node:
                    shutil.copyfileobj(whole, node)
                os.unlink(unfinished)
            else:
                os.replace(unfinished, target)
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
        target = path.resolve()
        if target.exists() and not target.is_file():
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        with tempfile.TemporaryFile(dir=target.parent):
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
