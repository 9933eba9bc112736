"""``python3 -m benches.gpu.smoke``: small integers through both ways, which must come out exactly.

Forward and backward, in every dtype, with TF32 and without, the activation kept and computed again.
Exit status 1 where a result is not equal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import torch

from tests.problems import Problem, check_exact, fused, integers
from tests.shapes import Shape

from .measuring import in_a_line

# The first two go through in one launch each way, the others layer by layer: the last with tensor
# descriptors and a sum over the batch that is cut among the multiprocessors.
NARROW = (Shape(64, 1000, 100, 10), Shape(33, 70, 65, 10))
LAYER_BY_LAYER = (Shape(65, 129, 70, 264), Shape(1500, 264, 392, 320))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Probe(NamedTuple):
    shape: Shape
    dtype: torch.dtype
    tf32: bool
    recompute: bool

    def __str__(self) -> str:
        words = [str(self.shape), str(self.dtype).removeprefix("torch.")]
        words += ["TF32"] * self.tf32 + ["recompute"] * self.recompute
        return " ".join(words)


def probes() -> Iterator[Probe]:
    for shape in NARROW + LAYER_BY_LAYER:
        for dtype in DTYPES:
            yield Probe(shape, dtype, tf32=False, recompute=False)
        yield Probe(shape, torch.float32, tf32=True, recompute=False)
        yield Probe(shape, torch.float32, tf32=False, recompute=True)


def _problem(probe: Probe, device: str) -> Problem:
    # TF32 has the significand of float16: what is exact there is exact here.
    drawn = integers(probe.shape, torch.float16 if probe.tf32 else probe.dtype, seed=1)
    inputs = {
        name: None if t is None else t.to(device, probe.dtype) for name, t in drawn.inputs.items()
    }
    return Problem(drawn.op, inputs, drawn.grad_out.to(device, probe.dtype))


def passes(probe: Probe, device: str, backend: str) -> str | None:
    """What is wrong, or ``None``."""
    torch.set_float32_matmul_precision("high" if probe.tf32 else "highest")
    try:
        problem = _problem(probe, device)
        check_exact(problem, fused(problem, backend, recompute=probe.recompute))
    except Exception as error:  # the other probes are of interest too
        return in_a_line(error)
    finally:
        torch.set_float32_matmul_precision("highest")
    return None


def main(device: str = "cuda", backend: str = "triton") -> int:
    failed = count = 0
    for probe in probes():
        problem = passes(probe, device, backend)
        print(f"{probe}: {'exact' if problem is None else 'FAILED: ' + problem}", flush=True)
        count += 1
        failed += problem is not None
    print(f"{count - failed} exact, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
