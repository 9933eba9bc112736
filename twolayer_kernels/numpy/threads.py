"""How many threads the functions on arrays use."""

from __future__ import annotations

from .. import _cpu

_threads: int | None = None  # as many as OpenMP would use now


def set_num_threads(threads: int) -> None:
    """How many threads the functions of this module may use from now on.

    Raises:
        TypeError, ValueError: ``threads`` is no int, or below 1.
    """
    global _threads
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise TypeError(f"threads must be an int, got {type(threads).__name__}")
    if threads < 1:
        raise ValueError(f"threads must be >= 1, got {threads}")
    _threads = threads


def get_num_threads() -> int:
    return _cpu.default_threads() if _threads is None else _threads
