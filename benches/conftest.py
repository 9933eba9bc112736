"""The threads that every bench runs on."""

from __future__ import annotations

import torch

import twolayer_kernels.numpy as fused_numpy

from .machine import THREADS

torch.set_num_threads(THREADS)
fused_numpy.set_num_threads(THREADS)
