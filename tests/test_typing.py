"""A user's program under a strict type checker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import twolayer_kernels

pytest.importorskip("mypy", reason="the checker is part of the lint group")

PROGRAM = """
import numpy as np
import torch
from typing import assert_type

from twolayer_kernels import (
    FusedLinearReLU, FusedTwoLayer, TwoLayerNet, explain, fuse, unfuse,
)
from twolayer_kernels import numpy as tk
from twolayer_kernels.functional import linear_relu, two_layer

x = torch.ones(5, 4)
model = FusedTwoLayer(4, 3, 2, bias=False, recompute=True, backend="cpu", dtype=torch.float32)
assert_type(model.in_features, int)
assert_type(FusedTwoLayer.from_linears(model.linear1, model.linear2), FusedTwoLayer)
assert_type(two_layer(x, torch.ones(3, 4), torch.ones(2, 3), None, None), torch.Tensor)
assert_type(linear_relu(x, torch.ones(3, 4), backend=None), torch.Tensor)
assert_type(explain(model, x), str)
assert_type([site.fused for site in fuse(torch.nn.Sequential(FusedLinearReLU(4, 3)))], list[bool])
assert_type(unfuse(TwoLayerNet(4, 3, 2)), int)
"""
MISTAKES = """
import torch
from twolayer_kernels import FusedTwoLayer, explain
from twolayer_kernels.functional import two_layer

FusedTwoLayer(4, 3)
FusedTwoLayer(4, 3, "2")
two_layer(torch.ones(5, 4), torch.ones(3, 4), torch.ones(2, 3), recompute="yes")
explain(FusedTwoLayer(4, 3, 2))
"""


def check(program, folder):
    """mypy's verdict on a program of somebody else's, with his configuration: none."""
    file = folder / "program.py"
    file.write_text(program)
    return subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file=", file.name),
            "--follow-imports=silent",  # an editable install is found by its path, as sources
        ],
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(Path(twolayer_kernels.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_right_program_passes(tmp_path):
    done = check(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mistakes_are_found(tmp_path):
    done = check(MISTAKES, tmp_path)
    lines = [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line]
    assert sorted(set(lines)) == ["6", "7", "8", "9"], done.stdout
