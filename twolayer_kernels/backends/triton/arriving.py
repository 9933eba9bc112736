"""How the programs of a launch that share a sum find out which of them is the last."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def is_last(arrived, parts):
    """Whether this program is the last of ``parts`` to come here; the counter is then 0 again."""
    tl.debug_barrier()  # what this program stored is seen by who reads the counter
    before = tl.atomic_add(arrived, 1, sem="acq_rel")
    last = before == parts - 1
    if last:
        tl.store(arrived, 0)
    return last
