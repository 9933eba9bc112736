"""These tests run the Triton kernels in Python, in a process of their own: TRITON_INTERPRET=1."""

from __future__ import annotations

import os

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
