"""How a call is timed, and the check that its result is right before it is."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from .works import Call

# Peers of a row take turns, each in blocks of many calls: NumPy's and torch's
# threads get in each other's way when single calls alternate. The table takes the
# median over the blocks' medians.
REPEATS = 3
BLOCK_SECONDS = 0.25
# NumPy's threads go on spinning for a tenth of a second after its last product.
SETTLE_SECONDS = 0.15
# A timed round is at least this long, so that reading the clock costs nothing.
ROUND_SECONDS = 100e-6
MAX_ROUNDS = 400
MIN_ROUNDS = 5


def time_call(benchmark: Any, call: Call) -> None:
    """Times ``call`` in one block, the first fifth of it dropped."""
    time.sleep(SETTLE_SECONDS)
    call()
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    iterations = max(1, round(ROUND_SECONDS / once))
    rounds = int(BLOCK_SECONDS / (once * iterations))
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, rounds))
    benchmark.pedantic(
        call, rounds=rounds, iterations=iterations, warmup_rounds=max(1, rounds // 4)
    )


def _flat(result: Any) -> list[np.ndarray[Any, Any]]:
    parts = result if isinstance(result, (list, tuple)) else [result]
    return [
        (p.double().numpy() if isinstance(p, torch.Tensor) else np.asarray(p, np.float64))
        for p in parts
    ]


def check_close(result: Any, exact: Any, dtype: torch.dtype) -> None:
    """No figure on a wrong result: each part near the float64 result, by its norm.

    The precise budgets are the test suite's; this catches a peer that does another work.
    """
    band = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
    for part, wanted in zip(_flat(result), _flat(exact), strict=True):
        assert part.shape == wanted.shape
        error = np.linalg.norm(part - wanted) / max(np.linalg.norm(wanted), 1e-30)
        assert error <= band, f"wrong by {error:.1e} of its norm, shape {part.shape}"
