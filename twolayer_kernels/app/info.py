"""``twolayer info``: versions, instruction set, threads, and which kernel serves what."""

from __future__ import annotations

import importlib
import os
import platform
from importlib import metadata

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import FusedTwoLayer, __version__, explain

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} logical processors"


def _kernels() -> list[tuple[str, str]]:
    """What the compiled kernels say of themselves, or why they are not there."""
    try:
        kernels = importlib.import_module("twolayer_kernels._cpu")
        fused_numpy = importlib.import_module("twolayer_kernels.numpy")
    except ImportError as error:
        return [("CPU kernels", f"not available: {error}")]
    forced = os.environ.get("TWOLAYER_ISA")
    reason = f"TWOLAYER_ISA={forced}" if forced else "the widest this machine runs"
    return [
        ("instruction set", f"{kernels.instruction_set()} ({reason})"),
        ("to choose from", ", ".join(kernels.instruction_sets())),
        ("threads", f"{torch.get_num_threads()} for torch, {fused_numpy.get_num_threads()} numpy"),
    ]


def _explanations() -> list[tuple[str, str]]:
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    lines = []
    for device in devices:
        for dtype in DTYPES:
            name = f"{device} {str(dtype).removeprefix('torch.')}"
            model = FusedTwoLayer(1, 1, 1, device=device, dtype=dtype)
            try:
                said = explain(model, torch.empty(1, 1, device=device, dtype=dtype))
            except NotImplementedError as error:
                said = f"none: {error}"
            lines.append((name, said.removeprefix("FusedTwoLayer: ")))
    return lines


def show(console: Console) -> None:
    rows = [
        ("twolayer_kernels", __version__),
        ("python", platform.python_version()),
        *((package, _version(package)) for package in ("torch", "numpy", "triton")),
        ("processor", _processor()),
        *_kernels(),
    ]
    for index in range(torch.cuda.device_count()):
        rows.append((f"cuda:{index}", torch.cuda.get_device_name(index)))
    table = Table(box=box.SIMPLE_HEAD, show_header=False, show_edge=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(name, escape(value))
    table.add_section()
    for name, value in _explanations():
        table.add_row(name, escape(value))
    console.print(table, highlight=False)
