"""The process that uses the GPU: what hangs is ended, what died is started again."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from benches.gpu.cases import CASES
from benches.gpu.measuring import measure
from benches.gpu.peers import EAGER
from benches.gpu.worker import Failed, Worker


def usable():
    return True


def unusable():
    return False


def fail():
    raise ValueError("no\n  good")


@pytest.fixture(scope="module")
def worker():
    with Worker(usable) as worker:
        yield worker


def test_what_a_function_returns_or_raises_is_told(worker):
    assert worker.call(divmod, 7, 4, seconds=60) == (1, 3)
    pid = worker.call(os.getpid, seconds=60)
    assert pid != os.getpid()
    with pytest.raises(Failed, match=r"^ValueError: no good$"):
        worker.call(fail, seconds=60)
    assert worker.call(os.getpid, seconds=60) == pid


def test_what_takes_too_long_is_ended_and_the_next_call_goes_on(worker):
    pid = worker.call(os.getpid, seconds=60)
    with pytest.raises(TimeoutError, match="not ready within 0 s"):
        worker.call(time.sleep, 60, seconds=0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert worker.call(os.getpid, seconds=60) != pid


def test_a_process_that_dies_is_told_of_and_replaced(worker):
    with pytest.raises(Failed, match="the process died with exit status 3"):
        worker.call(os._exit, 3, seconds=60)
    assert worker.call(divmod, 7, 4, seconds=60) == (1, 3)


def test_a_process_that_was_killed_meanwhile_is_replaced(worker):
    pid = worker.call(os.getpid, seconds=60)
    os.kill(pid, signal.SIGKILL)
    worker._process.join()
    assert worker.call(os.getpid, seconds=60) != pid


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure")
def test_without_a_device_the_measuring_process_says_so():
    """What is asked and answered goes through to another process."""
    with Worker() as worker, pytest.raises(Failed, match=r"CUDA|NVIDIA"):
        worker.call(measure, CASES[0], [EAGER], [], seconds=120)


def test_a_process_whose_device_failed_is_left():
    with Worker(unusable) as worker:
        first = worker.call(os.getpid, seconds=60)
        assert worker.call(os.getpid, seconds=60) != first
