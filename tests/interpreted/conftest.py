"""These tests run the Triton kernels in Python, in a process of their own: TRITON_INTERPRET=1."""

from __future__ import annotations

import os

import numpy as np
import pytest

# Triton reads the variable when a kernel is decorated, so one process cannot do both.
if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items):
    """The interpreter of triton 3.6 makes scalars of arrays in a way that NumPy warns of."""
    for item in items:
        if "interpreted" in item.path.parts:
            item.add_marker(
                pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
            )


@pytest.fixture(scope="session", autouse=True)
def _repaired_interpreter():
    from . import interpreter

    with pytest.MonkeyPatch.context() as monkeypatch, interpreter.hastened():
        interpreter.repair(monkeypatch)
        yield


@pytest.fixture(autouse=True)
def _silent_arithmetic():
    """A GPU does not warn of what becomes NaN or infinite."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture(autouse=True)
def _counters_are_zero_after_every_launch(monkeypatch):
    from twolayer_kernels.backends.triton import arrivals, launch, layers

    start = launch.launch

    def checked(*arguments):
        start(*arguments)
        for slab in arrivals._slabs.values():
            assert not slab._zeros.any(), "a kernel left its arrival counters changed"

    for module in (launch, layers):
        monkeypatch.setattr(module, "launch", checked)


@pytest.fixture
def force(monkeypatch):
    """Chooses the path, the device or the tiles in the place of the backend."""
    from .forcing import Force

    return Force(monkeypatch)


@pytest.fixture(params=["general", "narrow"])
def path(request, force):
    """Runs a test once layer by layer, and once with both layers in one launch."""
    return force.path(request.param)
