"""Memory that comes filled with NaN, the hypothesis profile, and what is said of the machine."""

from __future__ import annotations

import ctypes
import os
import sys

# Waiting threads sleep: those that spin bring the suite to a crawl beside any busy process.
# OpenMP reads this when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
import torch
from hypothesis import settings

# The same examples in every run, and none stored on disk.
settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.load_profile("tests")

_M_PERTURB = -6  # mallopt(3): fill what malloc hands out with the complement of a byte


def pytest_report_header() -> str:
    try:
        from twolayer_kernels import _cpu
    except ImportError as error:
        return f"twolayer_kernels: no CPU kernels: {error}"
    among = ", ".join(_cpu.instruction_sets())
    return (
        f"twolayer_kernels: instruction set {_cpu.instruction_set()} (of {among});"
        f" torch {torch.__version__}, {torch.get_num_threads()} threads"
    )


def _perturb_malloc(byte: int) -> None:
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
        if mallopt is not None:
            mallopt(_M_PERTURB, byte)


@pytest.fixture
def poisoned_memory(monkeypatch):
    """Fresh memory holds NaN, so that an element nobody wrote cannot pass for a right one.

    - torch fills whatever ``empty``, ``empty_like``, ``new_empty``, ``empty_strided`` and
      ``resize_`` return, under every name and from C++ too, while deterministic algorithms
      are on and ``fill_uninitialized_memory`` is set.
    - ``numpy.empty`` and ``numpy.empty_like`` are replaced.
    - glibc fills what malloc returns with bytes 0x7f (float32: 3.4e38, float16: NaN):
      the kernels' own scratch.
    """

    def filled(make):
        def poisoned(*args, **kwargs):
            array = make(*args, **kwargs)
            if array.dtype.kind == "f":
                array.fill(np.nan)
            return array

        return poisoned

    monkeypatch.setattr(np, "empty", filled(np.empty))
    monkeypatch.setattr(np, "empty_like", filled(np.empty_like))
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    _perturb_malloc(0x80)
    yield
    _perturb_malloc(0)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def tuned_tables(tmp_path, monkeypatch):
    """An empty folder for tuned tables; what is read from it is forgotten afterwards."""
    from twolayer_kernels.backends.triton import measurements, products, tiles

    modules = tiles, measurements, products
    monkeypatch.setenv("TWOLAYER_CACHE", str(tmp_path))
    for module in modules:
        module.forget_tables()
    yield tmp_path
    monkeypatch.undo()
    for module in modules:
        module.forget_tables()


@pytest.fixture
def fused_calls(monkeypatch):
    """The options of each call of ``functional.two_layer``."""
    from twolayer_kernels import functional

    seen = []
    original = functional.two_layer

    def watched(*args, **kwargs):
        seen.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(functional, "two_layer", watched)
    return seen
