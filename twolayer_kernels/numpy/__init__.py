"""The fused kernels on NumPy arrays; torch is neither needed nor imported.

Weights are ``(out, in)`` as in ``torch.nn.Linear``; for weights kept as
``(in, out)`` pass their transposed view, ``w.T``, which copies nothing. The
functions run on ``OMP_NUM_THREADS`` threads, else on one per processor that
affinity and control groups leave; ``set_num_threads`` changes it, and until it
was called ``threadpoolctl`` does.
"""

__all__ = [
    "fit",
    "get_num_threads",
    "linear_relu",
    "linear_relu_backward",
    "set_num_threads",
    "step",
    "two_layer",
    "two_layer_backward",
    "two_layer_forward",
]

from .network import linear_relu as linear_relu
from .network import linear_relu_backward as linear_relu_backward
from .network import two_layer as two_layer
from .network import two_layer_backward as two_layer_backward
from .network import two_layer_forward as two_layer_forward
from .threads import get_num_threads as get_num_threads
from .threads import set_num_threads as set_num_threads
from .training import fit as fit
from .training import step as step
