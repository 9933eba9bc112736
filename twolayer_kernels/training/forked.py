"""torch's own operations in the child of a fork.

OpenMP's threads are not there in it, and whatever shares work with them waits for ever: so does
torch, ``zeros_like`` of a large tensor for one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_forked = False
_threads: int | None = None  # of the kernels, while torch has its own alone


def _note() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_note)


def num_threads() -> int:
    """How many threads the kernels may use: as many as torch may outside :func:`on_own_thread`."""
    return torch.get_num_threads() if _threads is None else _threads


@contextmanager
def on_own_thread() -> Iterator[None]:
    """In the child of a fork, torch's operations inside use no other thread."""
    global _threads
    threads = torch.get_num_threads()
    if not _forked or threads == 1:
        yield
        return
    _threads = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _threads = None
        if torch.get_num_threads() == 1:  # nobody has changed it since
            torch.set_num_threads(threads)
