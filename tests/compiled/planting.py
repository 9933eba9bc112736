"""Faults planted in functions that are compiled into kernels."""

from __future__ import annotations

from types import ModuleType

from triton.runtime import JITFunction


def plant(monkeypatch, module: ModuleType, name: str, faulty: JITFunction) -> None:
    """Puts ``faulty`` in the place of a function, for all that call it in its module."""
    monkeypatch.setattr(module, name, faulty)
    for function in vars(module).values():
        if isinstance(function, JITFunction):
            # Triton keeps what a function's source hashes to, together with all that it calls.
            monkeypatch.setattr(function, "hash", None)
