"""These tests compile for real GPUs, in a process of their own: ``pytest tests/compiled``.

They are left out where Triton interprets (it reads the variable when a kernel is decorated, so one
process cannot do both), and of ``pytest tests``, which would take minutes with them.
"""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).parent


def _is_named(config) -> bool:
    named = (Path(argument.split("::")[0]) for argument in config.args)
    return any((config.invocation_params.dir / path).is_relative_to(HERE) for path in named)


def pytest_ignore_collect(collection_path, config):
    if os.environ.get("TRITON_INTERPRET") == "1" or not _is_named(config):
        return True
    return None  # as every other rule says
