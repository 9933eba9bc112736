"""The machine of a run, as written beside its figures."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_ASKED = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit",
          "temperature.gpu")  # fmt: skip


def _said_by(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def commit() -> str:
    """``TWOLAYER_COMMIT`` where it is set: the files may have come without their repository."""
    return (
        os.environ.get("TWOLAYER_COMMIT")
        or _said_by("git", "describe", "--always", "--dirty")
        or "unknown"
    )


def nvidia_smi() -> dict[str, str]:
    """Driver, clocks and the like of the first GPU, where the tool is there."""
    query = ",".join(_ASKED)
    line = _said_by("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0")
    values = [value.strip() for value in line.splitlines()[0].split(",")] if line else []
    return dict(zip(_ASKED, values, strict=False))


def describe() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties()
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "driver": nvidia_smi().get("driver_version", "unknown"),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": _version("triton"),
        "numpy": _version("numpy"),
        "python": platform.python_version(),
        "commit": commit(),
    }
