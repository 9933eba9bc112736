"""scikit-learn's own tests of its perceptrons, and of any estimator, run on ours.

This file also runs where there is no torch, in an environment with the oldest scikit-learn.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn
from sklearn.utils.estimator_checks import parametrize_with_checks

from twolayer_kernels.sklearn import MLPClassifier, MLPRegressor

ROOT = Path(__file__).parents[2]


def test_scikit_learns_tests_of_its_perceptrons(tmp_path):
    """The installed package's own file, whole, with these classes in the place of its own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-p", "tests.ecosystem.in_place"),
            *("--pyargs", "sklearn.neural_network.tests.test_mlp"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    print(f"scikit-learn {sklearn.__version__}:", *done.stdout.splitlines()[-2:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"epochs on the kernels: (\d+)", done.stdout)[1]) > 1000


# max_iter is what scikit-learn's own tests set; none of the checks is expected to fail.
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        MLPClassifier(max_iter=100),
        MLPRegressor(max_iter=100),
        MLPRegressor(max_iter=100, solver="sgd"),
    ]
)
def test_checks_of_any_estimator(estimator, check):
    check(estimator)
