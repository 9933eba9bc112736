"""Running the command line in tests: in this process, or an example in one of its own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from twolayer_kernels import cli
from twolayer_kernels import numpy as fused_numpy

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@contextmanager
def one_thread():
    """Threads of several libraries wait for each other on a busy machine; the results stay.

    What a command's --threads changes is undone at the end.
    """
    before = torch.get_num_threads(), fused_numpy.get_num_threads()
    with threadpool_limits(1, user_api="blas"):
        torch.set_num_threads(1)
        fused_numpy.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            fused_numpy.set_num_threads(before[1])


def write_clouds():
    """clouds.csv: 60 points of 3 features in classes "no" and "yes", which a plane parts."""
    x = np.random.default_rng(0).standard_normal((60, 3))
    lines = [f"{a},{b},{c},{'yes' if a + b > 0 else 'no'}" for a, b, c in x]
    path = Path("clouds.csv")
    path.write_text("a,b,c,label\n" + "\n".join(lines) + "\n")
    return path


def run(*arguments, status=0, capsys=None):
    """Runs ``twolayer`` with these arguments, which must end with ``status``; what it printed."""
    assert cli.main([str(argument) for argument in arguments]) == status, arguments
    return capsys.readouterr() if capsys else None


def train_clouds(*arguments, **options):
    small = ("--hidden", 8, "--batch-size", 16)
    return run("train", "--data", write_clouds(), *small, *arguments, **options)


def only_line(streams):
    """The single line that a failed command prints, on stderr alone."""
    assert streams.out == ""
    (line,) = streams.err.splitlines()
    assert line.startswith("twolayer: ")
    return line


def in_a_fresh_process(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
    )
