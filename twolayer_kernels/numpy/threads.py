"""How many threads the functions on arrays use."""

from __future__ import annotations

from numbers import Integral

from .. import _cpu

_threads: int | None = None  # as many as OpenMP would use now


def set_num_threads(threads: int) -> None:
    """How many threads the functions of this module may use from now on.

    Raises:
        TypeError, ValueError: ``threads`` is no int, below 1 or beyond 32 bits.
    """
    global _threads
    if isinstance(threads, bool) or not isinstance(threads, Integral):
        raise TypeError(f"threads must be an int, got {type(threads).__name__}")
    if not 1 <= threads < 2**31:
        raise ValueError(f"threads must be >= 1 and below 2**31, got {threads}")
    _threads = int(threads)


def get_num_threads() -> int:
    """How many threads the functions of this module use."""
    return _cpu.default_threads() if _threads is None else _threads
