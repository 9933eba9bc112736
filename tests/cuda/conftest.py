"""What holds for every test on a GPU; ``pytest --confcutdir=tests/cuda tests/cuda`` needs no more.

Nothing beyond pytest, NumPy, torch and triton is imported: GPU machines have little else.
"""

from __future__ import annotations

import os

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(2)  # there are many workers


def pytest_report_header() -> str:
    if not torch.cuda.is_available():
        return "tests/cuda: no CUDA device"
    return f"tests/cuda: {torch.cuda.get_device_name()}, torch {torch.__version__}"


@pytest.fixture(autouse=True)
def _exact_float32():
    """Float32 products are float32's unless a test says otherwise."""
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.fixture(params=["narrow", "general"])
def path(request, monkeypatch):
    """As the backend chooses, which is the narrow kernels for a small network; then by layers."""
    if request.param == "general":
        from twolayer_kernels.backends import triton

        monkeypatch.setattr(triton, "is_narrow", lambda *_: False)
    return request.param
