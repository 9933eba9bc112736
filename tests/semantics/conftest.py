"""These tests run what Triton's compiler reads, by ttsem: ``make test-ecosystem`` installs it."""

from __future__ import annotations

import importlib.util
import os

import pytest

if importlib.util.find_spec("ttsem") is None or os.environ.get("TRITON_INTERPRET") == "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def force(monkeypatch):
    """Chooses the path, the device or the tiles in the place of the backend."""
    from ..interpreted.forcing import Force

    return Force(monkeypatch)
