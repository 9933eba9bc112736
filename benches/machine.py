"""The machine of a run: its measured arithmetic limit, and what to write beside figures."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Any

import numpy as np
import torch

from twolayer_kernels import _cpu

THREADS = min(2, os.cpu_count() or 1)
_SECONDS = 0.3


def peaks() -> dict[str, float]:
    """Operations per second at which multiply-adds run in registers, on all threads."""
    return {
        "float32": _cpu.fma_rate(_cpu.DType.float32, THREADS, _SECONDS),
        "float64": _cpu.fma_rate(_cpu.DType.float64, THREADS, _SECONDS),
    }


def _commit() -> str:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return run.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "instruction_set": _cpu.instruction_set(),
        "threads": THREADS,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
        "peak_before": peaks(),
    }
