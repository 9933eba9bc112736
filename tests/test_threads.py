"""Threads: torch's count is obeyed, calls may run at once, and the GIL is released."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from twolayer_kernels.functional import linear_relu, two_layer

from .comparing import assert_same_bits
from .problems import (
    BACKENDS,
    DTYPES,
    Problem,
    check_budget,
    check_exact,
    dtype_id,
    fused,
    integers,
    randoms,
)
from .shapes import FEW_SHAPES, MIXED_SHAPES, Shape, size_id

pytestmark = pytest.mark.usefixtures("poisoned_memory")

each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
each_count = pytest.mark.parametrize("threads", [1, 2, 3, 7])


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@each_backend
@each_count
@each_dtype
@pytest.mark.parametrize("shape", [*FEW_SHAPES, *MIXED_SHAPES], ids=size_id)
def test_any_thread_count_is_exact(set_threads, backend, shape, dtype, threads):
    set_threads(threads)
    problem = integers(shape, dtype, seed=1)
    check_exact(problem, fused(problem, backend))


@each_backend
@each_count
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
@pytest.mark.parametrize("shape", [*FEW_SHAPES, Shape(64, 1000, 100, 10)], ids=size_id)
def test_any_thread_count_is_within_budget(set_threads, backend, shape, dtype, threads):
    problem = randoms(shape, dtype, seed=2)
    set_threads(threads)
    check_budget([problem], [fused(problem, backend)])


@each_backend
@each_count
@pytest.mark.parametrize("shape", [Shape(70, 250, 40, 17), Shape(64, 1000, 100, 10)], ids=size_id)
def test_any_thread_count_gives_the_same_bits_twice(set_threads, backend, shape, threads):
    set_threads(threads)
    problem = randoms(shape, torch.float32, seed=3)
    first, second = fused(problem, backend), fused(problem, backend)
    for name in first:
        assert_same_bits(name, second[name], first[name])


# Each product's rows fall below and above the few that run as dot products, in one thread's share
# of them and as a whole.
@pytest.mark.parametrize("out_features", [8, 10, 16])
@pytest.mark.parametrize("batch", [1, 4, 5, 8, 9, 12])
def test_results_have_the_same_bits_for_any_thread_count(set_threads, batch, out_features):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(batch, 4001, generator=generator)
    w = torch.randn(out_features, 4001, generator=generator)
    set_threads(1)
    expected = linear_relu(x, w, backend="cpu")
    for threads in (2, 3, 7):
        set_threads(threads)
        assert_same_bits("a", linear_relu(x, w, backend="cpu"), expected)


# Vectors of results that are whole on one thread are not on three. Sums are normal numbers, which
# a bias takes to subnormal ones: the matrix unit makes no subnormal sums.
@each_dtype
def test_subnormal_results_have_the_same_bits_for_any_thread_count(set_threads, dtype):
    generator = torch.Generator().manual_seed(3)
    smallest = torch.finfo(dtype).smallest_normal
    sizes = ((133, 70), (145, 70), (145,))
    factors = (smallest**0.5, smallest**0.5, 8 * smallest)
    x, w, b = (
        (torch.randn(size, generator=generator, dtype=torch.float64) * factor).to(dtype)
        for size, factor in zip(sizes, factors, strict=True)
    )
    outputs = []
    for threads in (1, 2, 3, 7):
        set_threads(threads)
        outputs.append(linear_relu(x, w, b, backend="cpu"))
    assert outputs[0].count_nonzero() > 0
    for a in outputs[1:]:
        assert_same_bits("a", a, outputs[0])


# Samples are dealt to threads whole where they are many beside the weights: in rows and in columns
# of the activation, which is kept or not, in one piece of the batch or several; a thread's samples
# may be so few that by themselves they would be dot products (with AVX2 the last two shapes').
@each_dtype
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        Shape(64, 40, 100, 30), Shape(100, 30, 64, 30), Shape(39, 22, 700, 2),
        Shape(1111, 20, 30, 9), Shape(600, 3, 4100, 2), Shape(100, 959, 24, 9),
        Shape(112, 1, 129, 99),
    ],
    ids=size_id,
)  # fmt: skip
def test_dealt_samples_have_the_same_bits_for_any_thread_count(set_threads, shape, keep, dtype):
    inputs = randoms(shape, dtype, seed=4).inputs
    inputs["x"].requires_grad_(keep)
    outputs = []
    for threads in (1, 2, 3, 8):
        set_threads(threads)
        outputs.append(two_layer(**inputs, backend="cpu").detach())
    for y in outputs[1:]:
        assert_same_bits("y", y, outputs[0])


def _gaussian(shape: Shape, dtype: torch.dtype) -> Problem:
    """Of any size: bits are compared, so nothing has to stay away from the ReLU's kink."""
    generator = torch.Generator().manual_seed(5)
    batch, in_features, hidden, out = shape
    sizes = {
        **{"x": (batch, in_features), "w1": (hidden, in_features), "w2": (out, hidden)},
        **{"b1": (hidden,), "b2": (out,)},
    }
    inputs = {n: torch.randn(size, generator=generator).to(dtype) for n, size in sizes.items()}
    return Problem("two_layer", inputs, torch.randn(batch, out, generator=generator).to(dtype))


# Backward deals the samples in shares, as many as the sizes say: with a hidden layer in several
# pieces of a share, in rows and (144 samples) in columns, and shares whose sums take more than a
# megabyte; on more threads than there are shares.
@each_dtype
@pytest.mark.parametrize("options", [{}, {"recompute": True}], ids=["saved", "recompute"])
@pytest.mark.parametrize(
    "shape",
    [
        Shape(1037, 40, 33, 3), Shape(700, 20, 100, 2), Shape(520, 8, 64, 1),
        Shape(131, 17, 190, 6), Shape(144, 40, 33, 3),
        Shape(2600, 17, 1500, 5), Shape(5000, 300, 260, 9),
    ],
    ids=size_id,
)  # fmt: skip
def test_shares_of_the_samples_have_the_same_bits_for_any_thread_count(
    set_threads, shape, options, dtype
):
    problem = _gaussian(shape, dtype)
    for needs in (None, ("x",), ("w1", "b2"), ("w2", "b2")):
        results = []
        for threads in (1, 2, 3, 7):
            set_threads(threads)
            results.append(fused(problem, "cpu", needs=needs, **options))
        for other in results[1:]:
            # Threads that share one product add the first bias's sums up in parts of their own.
            for name in other.keys() - {"b1", "grad_b1"}:
                assert_same_bits(name, other[name], results[0][name])


@each_dtype
@pytest.mark.parametrize("needs", [None, ("x",), ("w1", "b2"), ("w2", "b1")])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "offset"])
@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize(
    "shape",
    [Shape(144, 40, 33, 3), Shape(131, 17, 190, 6), Shape(700, 20, 100, 2)],
    ids=size_id,
)
def test_shares_are_exact(set_threads, shape, threads, layout, needs, dtype):
    set_threads(threads)
    problem = integers(shape, dtype, layout=layout, seed=5)
    found = fused(problem, "cpu", needs=needs)
    check_exact(problem, {n: t for n, t in found.items() if t is not None})


@each_dtype
@pytest.mark.parametrize("bias", [False, True])
def test_shares_of_one_layer_have_the_same_bits_for_any_thread_count(set_threads, bias, dtype):
    generator = torch.Generator().manual_seed(6)
    sizes = (1300, 40), (70, 40), (70,)
    leaves = [torch.randn(size, generator=generator).to(dtype) for size in sizes[: 2 + bias]]
    results = []
    for threads in (1, 2, 3, 7):
        set_threads(threads)
        own = [leaf.clone().requires_grad_() for leaf in leaves]
        a = linear_relu(*own, backend="cpu")
        results.append(torch.autograd.grad(a, own, torch.ones_like(a)))
    for other in results[1:]:
        for name, ours, first in zip("xwb", other, results[0], strict=False):
            assert_same_bits(name, ours, first)


@each_backend
def test_calls_from_several_python_threads_at_once(backend):
    """Each with a shape and dtype of its own, again and again: they share no scratch memory."""
    problems = [
        integers(shape, dtype, seed=4)
        for shape in (Shape(33, 70, 65, 10), Shape(64, 600, 100, 10), Shape(128, 96, 80, 64))
        for dtype in (torch.float32, torch.bfloat16)
    ]
    start = threading.Barrier(len(problems))

    def run(problem):
        start.wait()
        for _ in range(15):
            check_exact(problem, fused(problem, backend))

    with ThreadPoolExecutor(len(problems)) as pool:
        for future in [pool.submit(run, problem) for problem in problems]:
            future.result()


def share_of_ticks(call) -> float:
    """How much of the time of ``call`` another Python thread was awake for, from 0 to about 1."""
    pause, ticks, stop = 0.0005, 0, threading.Event()

    def tick():
        nonlocal ticks
        while not stop.is_set():
            time.sleep(pause)
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        while ticks == 0:
            time.sleep(0.001)
        before, start = ticks, time.perf_counter()
        call()
        return (ticks - before) * pause / (time.perf_counter() - start)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("part", ["forward", "backward"])
def test_another_python_thread_runs_during_a_kernel(set_threads, part):
    set_threads(1)
    x, w1, w2 = torch.randn(800, 1024), torch.randn(2048, 1024), torch.randn(1024, 2048)
    if part == "forward":
        share = share_of_ticks(lambda: two_layer(x, w1, w2, backend="cpu"))
    else:
        y = two_layer(x, w1.requires_grad_(), w2, backend="cpu")
        share = share_of_ticks(y.sum().backward)
    assert share > 0.15


@pytest.mark.skipif(sys.platform == "win32", reason="usleep is POSIX's")
def test_a_call_that_holds_the_gil_is_found():
    holds_the_gil = ctypes.PyDLL(None).usleep
    assert share_of_ticks(lambda: holds_the_gil(300_000)) < 0.15
