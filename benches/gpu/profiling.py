"""Where the time of a step goes, kernel by kernel."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from .cases import Case
from .measuring import precision_of
from .peers import EAGER, OURS, PEERS, Network

PROFILED = (OURS, EAGER)
STEPS = 5
_LINES = 20


def table(case: Case) -> str:
    """The kernels of some steps of a row, ours and eager's, the longest first."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    parts = []
    with precision_of(case):
        network = Network(case)
        for name in PROFILED:
            call = PEERS[name](network)
            call()  # compiles
            with profile(activities=activities) as profiler:
                for _ in range(STEPS):
                    call()
                torch.cuda.synchronize()
            kernels = profiler.key_averages().table(
                sort_by="self_cuda_time_total", row_limit=_LINES
            )
            parts.append(f"{case.id}, {name}, {STEPS} steps\n{kernels}")
    return "\n".join(parts)
