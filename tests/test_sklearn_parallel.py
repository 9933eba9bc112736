"""Many estimators at once, in joblib's threads and processes: same results, no more threads."""

from __future__ import annotations

import inspect
import os
import threading

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from threadpoolctl import threadpool_limits

from twolayer_kernels import _cpu
from twolayer_kernels.sklearn import MLPClassifier
from twolayer_kernels.sklearn.choice import threads
from twolayer_kernels.sklearn.versions import TAKES_SAMPLE_WEIGHT

from .sklearn_cases import load

pytestmark = pytest.mark.filterwarnings("ignore")

X, Y = load("iris", "float64")


def test_a_thread_of_joblibs_works_alone():
    with parallel_config("threading", n_jobs=2):
        assert Parallel()(delayed(threads)() for _ in range(4)) == [1] * 4
    assert threads() == _cpu.default_threads()
    found = []
    other = threading.Thread(target=lambda: found.append(threads()))
    other.start()
    other.join()
    assert found == [_cpu.default_threads()]


def test_threadpoolctl_limits():
    with threadpool_limits(1):
        assert threads() == 1
    with threadpool_limits(2, user_api="openmp"):
        assert threads() == 2


def test_a_process_of_joblibs_takes_its_share():
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    expected = min(share, int(os.environ.get("OMP_NUM_THREADS", share)))
    with parallel_config("loky", n_jobs=2):
        assert Parallel()(delayed(threads)() for _ in range(2)) == [expected] * 2
    with parallel_config("loky", n_jobs=2, inner_max_num_threads=1):
        assert Parallel()(delayed(threads)() for _ in range(2)) == [1] * 2


def scores():
    model = MLPClassifier(max_iter=10, random_state=0)
    bag = BaggingClassifier(model, n_estimators=4, random_state=0).fit(X, Y)
    search = GridSearchCV(model, {"alpha": [1e-4, 1.0], "solver": ["adam", "sgd"]}, cv=3).fit(X, Y)
    return [
        cross_val_score(model, X, Y, cv=3),
        bag.predict_proba(X),
        search.cv_results_["mean_test_score"],
        search.predict_proba(X),
    ]


def with_jobs(backend):
    """The same calls, each with ``n_jobs=2`` from the context."""
    with parallel_config(backend, n_jobs=2):
        return scores()


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_the_same_results_side_by_side(backend):
    for one, two in zip(scores(), with_jobs(backend), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-9)


@pytest.mark.skipif(not TAKES_SAMPLE_WEIGHT, reason="scikit-learn before 1.7")
def test_bags_draw_by_sample_weight():
    assert "sample_weight" in inspect.signature(MLPClassifier().fit).parameters
    bag = BaggingClassifier(MLPClassifier(max_iter=10, random_state=0), 3, random_state=0, n_jobs=2)
    assert bag.fit(X, Y, sample_weight=np.arange(len(X)) % 3).score(X, Y) > 0.5
