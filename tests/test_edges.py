"""What reaches the compiled module in ways that the other tests do not take."""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

import twolayer_kernels.numpy as fused_numpy
from twolayer_kernels.backends.cpu import _cpu
from twolayer_kernels.functional import linear_relu, two_layer

from .comparing import assert_equal, assert_same_bits
from .problems import exact, fused, integers, plain
from .shapes import Shape

# ---- an activation in other memory than the one it was made in ----

# (rows, columns) apart. The first four are adjacent along one dimension, the last one along none.
STRIDES = [(9001, 1), (1, 9001), (1, 3), (3, 1), (3, 9007)]
SIZE_1 = [Shape(1, 5, 7, 3), Shape(6, 5, 1, 3), Shape(1, 5, 1, 3), Shape(1, 300, 700, 3)]


def restrided(a, rows, columns):
    """``a`` with these strides, the gaps between its elements filled with ones."""
    size = 1 + (a.shape[0] - 1) * rows + (a.shape[1] - 1) * columns
    return torch.ones(size, dtype=a.dtype).as_strided(a.shape, (rows, columns)).copy_(a)


each_shape = pytest.mark.parametrize("shape", SIZE_1, ids=str)
each_strides = pytest.mark.parametrize("strides", STRIDES, ids=str)


@each_shape
@each_strides
def test_saved_tensor_hooks_may_hand_back_an_activation_of_any_strides(shape, strides):
    problem = integers(shape, torch.float32, seed=1)
    unpacked = []

    def unpack(t):
        if t.shape != (shape.batch, shape.hidden_features):
            return t
        unpacked.append(restrided(t, *strides))
        return unpacked[-1]

    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
        results = fused(problem, "cpu")
    assert unpacked
    wanted = plain(problem)
    for name in results:
        assert_equal(name, results[name], wanted[name])


@each_shape
@each_strides
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_numpy_front_end_takes_an_activation_of_any_strides(shape, strides, dtype):
    problem = integers(shape, dtype, seed=1)
    x, w1, w2, b1 = (problem.inputs[name].numpy() for name in ("x", "w1", "w2", "b1"))
    a = restrided(exact(problem)["a"].to(dtype), *strides).numpy()
    gradients = fused_numpy.two_layer_backward(problem.grad_out.numpy(), x, w1, w2, b1, a)
    wanted = plain(problem)
    for name, gradient in zip(("x", "w1", "w2", "b1", "b2"), gradients, strict=True):
        np.testing.assert_array_equal(gradient, wanted[f"grad_{name}"].numpy())


def test_the_compiled_module_refuses_an_activation_that_is_adjacent_nowhere():
    x, w, w2, y = (torch.ones(*size) for size in ((4, 5), (3, 5), (2, 3), (4, 2)))
    apart = torch.ones(4, 60)[:, ::20]
    with pytest.raises(ValueError, match="a must be adjacent along its rows or columns"):
        _cpu.linear_relu_forward(1, x, w, None, apart)
    with pytest.raises(ValueError, match="a must be adjacent along its rows or columns"):
        _cpu.two_layer_forward(1, x, w, w2, None, None, apart, y)
    with pytest.raises(ValueError, match="a must be adjacent along its rows or columns"):
        _cpu.two_layer_backward(1, y, x, w, w2, None, apart, *(None,) * 3, torch.ones(3), None)


def test_the_compiled_module_refuses_the_other_byte_order():
    x = np.ones((4, 5), np.dtype(np.float32).newbyteorder())
    w, a = np.ones((3, 5), np.float32), np.empty((4, 3), np.float32)
    with pytest.raises(TypeError, match="byte order"):
        _cpu.linear_relu_forward(1, x, w, None, a)


# ---- the caller's floating-point mode ----

TO_NEAREST, UPWARD = 0x0, 0x800  # fenv.h, x86


@contextmanager
def flush_denormal():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def rounding_up():
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    if libm.fesetround(UPWARD) != 0:
        pytest.skip("another architecture's numbers for rounding modes")
    try:
        yield
    finally:
        libm.fesetround(TO_NEAREST)


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("mode", [flush_denormal, rounding_up])
@pytest.mark.parametrize("front_end", ["torch", "numpy"])
def test_every_thread_has_the_callers_floating_point_mode(set_threads, front_end, mode):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(64, 300, generator=generator)
    x[:, 1:] *= 1e-39  # products that are subnormal
    x[:, 0] = 1
    w = torch.rand(200, 300, generator=generator)
    w[:, 0] = 1e-39

    def run(threads):
        if front_end == "torch":
            set_threads(threads)
            return linear_relu(x, w, backend="cpu")
        a = np.empty((64, 200), np.float32)
        _cpu.linear_relu_forward(threads, x.numpy(), w.numpy(), None, a)
        return torch.from_numpy(a)

    usual = run(2)
    with mode():
        alone, together = run(1), run(2)
    assert (usual != alone).any()
    assert_same_bits("a", together, alone)
    assert_same_bits("a", run(2), usual)  # and they forget it again


# ---- memory and threads that are kept ----

_RESIDENT = """
import re
from pathlib import Path
import torch
from twolayer_kernels.functional import two_layer


def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10


def run(width):
    with torch.inference_mode():
        x = torch.randn(512, 4)
        two_layer(x, torch.randn(width, 4), torch.randn(3, width), backend="cpu")


run(100)
before = resident()
run(60_000)
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_wide_hidden_layer_leaves_no_memory_behind():
    """Its chunk of the activation takes 123 MB while it is needed."""
    done = subprocess.run(
        [sys.executable, "-c", _RESIDENT], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 40


_THREADS_MADE = """
import os, torch
from twolayer_kernels.functional import linear_relu, two_layer

x = {size: torch.randn(size, 300) for size in (4, 6, 64)}
w = torch.randn(200, 300)
torch.set_num_threads(4)


def newest_thread():
    linear_relu(x[64], w, backend="cpu")
    return max(map(int, os.listdir("/proc/self/task")))


before = newest_thread()
for _ in range(200):
    for size in x:  # 2 parts, 3 and 4
        linear_relu(x[size], w, backend="cpu")
print(newest_thread() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_works_of_varying_size_end_and_make_no_threads():
    done = subprocess.run(
        [sys.executable, "-c", _THREADS_MADE],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(done.stdout) == 0


# ---- an environment that lacks something ----


def test_a_torch_that_is_too_old_is_named():
    code = (
        "import torch; del torch.Tensor.__dlpack_c_exchange_api__\n"
        "import twolayer_kernels.backends.cpu"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert f"torch {torch.__version__}" in last
    assert "2.11" in last


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 3, 4), (0, 3, 4)])
@pytest.mark.parametrize("layers", [1, 2])
def test_results_are_views_where_torchs_are(layers, shape, grad, bias):
    """A view that was made without gradients cannot be written with them."""
    first, second = nn.Linear(4, 6, bias), nn.Linear(6, 3, bias)
    x = torch.randn(shape)
    with torch.set_grad_enabled(grad):
        wanted = torch.relu(first(x))
        if layers == 1:
            found = linear_relu(x, first.weight, first.bias)
        else:
            wanted = second(wanted)
            parameters = first.weight, second.weight, first.bias, second.bias
            found = two_layer(x, *parameters)
    assert found._is_view() == wanted._is_view()
    torch.testing.assert_close(found, wanted)
