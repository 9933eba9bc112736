"""A process that uses the GPU for the bench: what hangs is ended, a device that failed is left.

After a faulty access a process can do nothing more on its device; another process can.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

import torch

from .measuring import in_a_line


class _Answer(NamedTuple):
    value: Any
    error: str | None
    usable: bool  # whether the device answers still


def _device_answers() -> bool:
    try:
        torch.cuda.synchronize()
    except Exception:  # whatever it says, the next process is to find out
        return False
    return True


def _serve(questions: Connection, answers_after: Callable[[], bool]) -> None:
    os.setsid()  # so that what it starts can be ended with it
    while True:
        function, arguments = questions.recv()
        value, error = None, None
        try:
            value = function(*arguments)
        except Exception as failure:  # told to who asked
            error = in_a_line(failure)
        questions.send(_Answer(value, error, answers_after()))


class Failed(RuntimeError):
    """What was asked of the process raised an error, which this one tells of."""


class Worker:
    """Calls functions in a process of its own; a fresh one where the last one was lost."""

    def __init__(self, usable: Callable[[], bool] = _device_answers) -> None:
        self._usable = usable
        self._process: Any = None
        self._connection: Any = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._usable))
        self._process.start()
        theirs.close()  # so that its end is seen here

    def call(self, function: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
        """What ``function`` returns.

        Raises:
            TimeoutError: it took longer, and its process was ended.
            Failed: it raised, or its process died.
        """
        if self._process is None or not self._process.is_alive():
            self.stop()
            self._start()
        try:
            self._connection.send((function, arguments))
            if not self._connection.poll(seconds):
                self.stop()
                raise TimeoutError(f"not ready within {seconds:.0f} s")
            answer: _Answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            status = self._process.exitcode
            self.stop()
            raise Failed(f"the process died with exit status {status}") from None
        if not answer.usable:
            self.stop()
        if answer.error is not None:
            raise Failed(answer.error)
        return answer.value

    def stop(self) -> None:
        if self._process is None:
            return
        if self._process.is_alive():
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no session of its own yet
                self._process.kill()
        self._process.join()
        self._connection.close()
        self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
