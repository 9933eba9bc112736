"""What a command runs on: threads, device, and the backend of the fused side."""

from __future__ import annotations

import importlib

import torch

from .. import dispatch
from .. import numpy as fused_numpy
from .failures import BadInput


def set_threads(threads: int | None) -> None:
    """Gives every library in the process ``threads`` threads; ``None`` leaves each its own."""
    if threads is None:
        return
    torch.set_num_threads(threads)
    fused_numpy.set_num_threads(threads)
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")  # comes with scikit-learn
    except ModuleNotFoundError:
        return  # NumPy's BLAS then keeps the count of its environment variables
    threadpoolctl.threadpool_limits(threads, user_api="blas")


def check_device(device: str) -> None:
    """Raises :class:`BadInput` where torch has no such device, or one that cannot compute."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BadInput(f"--device {device}: {str(error).splitlines()[0]}") from error


def describe_backend(device: str, dtype: torch.dtype, backend: str | None) -> str:
    """The backend that serves such tensors, with its own words on itself: ``cpu[avx512]``.

    Raises:
        BadInput: the backend is unknown, or cannot.
    """
    try:
        chosen = dispatch.choose(torch.device(device).type, dtype, backend).backend
    except (ValueError, NotImplementedError) as error:
        raise BadInput(f"--{error}" if str(error).startswith("backend") else str(error)) from error
    name = chosen.__name__.rpartition(".")[2]
    return f"{name}{getattr(chosen, 'describe', lambda dtype, sizes: '')(dtype, None)}"
