"""The perceptrons beside scikit-learn's, which run at their best number of BLAS threads.

``python -m benches.estimators`` prints this table alone, or the rows whose names hold an argument.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from joblib import parallel_config
from rich.console import Console
from rich.table import Table
from sklearn import datasets, neural_network
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_limits

from twolayer_kernels import sklearn as fused

from .machine import THREADS, describe
from .timing import SETTLE_SECONDS

Make = Callable[[Any], Callable[[], Any]]


class Work(NamedTuple):
    """``make`` builds a call that does the work ``times`` over, from a module with the two classes.

    The calls return numbers, which must agree between the two.
    """

    name: str
    goal: float
    make: Make
    times: int = 1
    blocks: int = 5


class Figure(NamedTuple):
    """Seconds, medians: ours, and scikit-learn's by its BLAS threads."""

    ours: float
    theirs: dict[int, float]

    @property
    def ratio(self) -> float:
        return min(self.theirs.values()) / self.ours


def _random(*shape: int) -> Any:
    return np.random.RandomState(0).randn(*shape)


def _classes(samples: int, features: int, classes: int) -> tuple[Any, Any]:
    X = _random(samples, features)
    return X, (X @ np.random.RandomState(1).randn(features, classes)).argmax(axis=1)


def _numbers(samples: int, features: int) -> tuple[Any, Any]:
    X = _random(samples, features)
    return X, np.sin(X[:, 0]) + X @ np.random.RandomState(1).randn(features)


def _training(data: Callable[[], tuple[Any, Any]], dtype: str, epochs: int, module: Any) -> Any:
    X, y = data()
    X, y = X.astype(dtype), y.astype(dtype) if y.dtype.kind == "f" else y
    cls = module.MLPRegressor if y.dtype.kind == "f" else module.MLPClassifier
    model = cls(max_iter=epochs, tol=0.0, n_iter_no_change=epochs, random_state=0)
    return lambda: model.fit(X, y).loss_curve_


def _predicting(rows: int, dtype: str, times: int, module: Any) -> Any:
    X, y = _classes(10000, 50, 5)
    X = X.astype(dtype)
    model = module.MLPClassifier(max_iter=2, random_state=0).fit(X, y)
    return lambda: [model.predict_proba(X[:rows]) for _ in range(times)][-1]


def _searching(epochs: int, module: Any, jobs: int = 1) -> Any:
    X, y = datasets.load_digits(return_X_y=True)
    grid = {
        "alpha": [1e-4, 1e-2, 1.0],
        "learning_rate_init": [1e-3, 1e-2],
        "batch_size": [100, 200],
    }
    search = GridSearchCV(
        module.MLPClassifier(max_iter=epochs, random_state=0), grid, cv=5, n_jobs=jobs
    )
    return lambda: search.fit(X, y).cv_results_["mean_test_score"]


digits = partial(datasets.load_digits, return_X_y=True)
iris = partial(datasets.load_iris, return_X_y=True)

WORKS = [
    Work("epoch, digits, float32", 8, partial(_training, digits, "float32", 20), 20),
    Work("epoch, digits, float64", 5, partial(_training, digits, "float64", 20), 20),
    Work(
        "epoch, 20000 x 50, 5 classes, float32", 10,
        partial(_training, partial(_classes, 20000, 50, 5), "float32", 5), 5, 3,
    ),
    Work(
        "epoch, regression 20000 x 30, float32", 10,
        partial(_training, partial(_numbers, 20000, 30), "float32", 5), 5, 3,
    ),
    Work(
        "10 epochs, 200000 x 20, 2 classes, float64", 10,
        partial(_training, partial(_classes, 200000, 20, 2), "float64", 10), 1, 1,
    ),
    Work("fit of 200 epochs, iris, float64", 6, partial(_training, iris, "float64", 200), 1),
    Work("predict_proba, 1 x 50, float64", 1, partial(_predicting, 1, "float64", 200), 200),
    Work("predict_proba, 10000 x 50, float64", 2, partial(_predicting, 10000, "float64", 10), 10),
    Work("grid search of 12 x 5 folds, digits, 20 epochs", 6, partial(_searching, 20), 1, 1),
]  # fmt: skip
SIDE_BY_SIDE = "grid search, two threads of joblib's against n_jobs=1"


def measure(work: Work) -> Figure:
    calls = [work.make(module) for module in (fused, neural_network)]
    ours, theirs = (np.asarray(call()) for call in calls)
    assert ours.shape == theirs.shape, work.name
    assert np.abs(ours - theirs).max() <= 1e-2 * np.abs(theirs).max(), work.name
    times: dict[int, list[float]] = {0: []} | {n: [] for n in range(1, THREADS + 1)}
    for _ in range(work.blocks):
        for threads, seconds in times.items():
            with threadpool_limits(threads or None, user_api="blas"):
                time.sleep(SETTLE_SECONDS)
                start = time.perf_counter()
                calls[threads > 0]()
                seconds.append((time.perf_counter() - start) / work.times)
    medians = {threads: median(seconds) for threads, seconds in times.items()}
    return Figure(medians.pop(0), medians)


def side_by_side() -> float:
    """How much faster two of joblib's threads are, each fit on one thread of the kernels."""
    seconds = []
    for jobs in (1, 2):
        search = _searching(20, fused, jobs)
        with parallel_config("threading"), threadpool_limits(1 if jobs == 1 else None):
            start = time.perf_counter()
            search()
            seconds.append(time.perf_counter() - start)
    return seconds[0] / seconds[1]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def show(wanted: str = "") -> bool:
    """Measures and prints a row for each work; whether all goals are reached."""
    console = Console(width=160)
    machine = describe()
    console.print(f"{machine['processor']}, {machine['instruction_set']}, {THREADS} threads")
    table = Table(title="Perceptrons beside scikit-learn's", title_justify="left")
    for column in ("work", "goal", "x", "fused", "scikit-learn, by BLAS threads", ""):
        table.add_column(column, justify="left" if column in ("work", "") else "right")
    reached = True
    for work in WORKS:
        if wanted in work.name:
            figure = measure(work)
            fine = figure.ratio >= work.goal
            reached &= fine
            table.add_row(
                work.name,
                f">= {work.goal:g}",
                f"{figure.ratio:.2f}",
                _milliseconds(figure.ours),
                ", ".join(f"{n}: {_milliseconds(s)}" for n, s in figure.theirs.items()),
                "" if fine else "missed",
            )
    if wanted in SIDE_BY_SIDE:
        gain = side_by_side()
        reached &= gain >= 1.8
        table.add_row(
            SIDE_BY_SIDE, ">= 1.8", f"{gain:.2f}", "", "", "" if gain >= 1.8 else "missed"
        )
    console.print(table)
    return reached


def main() -> int:
    warnings.simplefilter("ignore")
    return 0 if show(*sys.argv[1:2]) else 1


if __name__ == "__main__":
    sys.exit(main())
