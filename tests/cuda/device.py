"""Problems on the GPU: moved there in their layout, run in poisoned memory, without near-zeros."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from ..problems import Problem, Results, fused, integers
from ..shapes import Shape

DEVICE = "cuda"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def require_cuda(devices: int = 1) -> None:
    """Skips the module or test where there are fewer GPUs."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < devices:
        pytest.skip(f"needs {devices} CUDA device(s), there are {count}", allow_module_level=True)


def moved(t: Tensor | None, device: str) -> Tensor | None:
    """``t`` with its strides, its offset and what surrounds it; ``.to`` keeps none of them."""
    if t is None:
        return None
    whole = t.as_strided((t.untyped_storage().nbytes() // t.element_size(),), (1,), 0)
    return whole.to(device).as_strided(t.shape, t.stride(), t.storage_offset())


def on_device(problem: Problem, device: str = DEVICE) -> Problem:
    inputs = {name: moved(t, device) for name, t in problem.inputs.items()}
    grad_out = moved(problem.grad_out, device)
    assert grad_out is not None
    return Problem(problem.op, inputs, grad_out)


def cast(problem: Problem, dtype: torch.dtype) -> Problem:
    inputs = {name: None if t is None else t.to(dtype) for name, t in problem.inputs.items()}
    return Problem(problem.op, inputs, problem.grad_out.to(dtype))


def tf32_integers(shape: Shape, *, op: str = "two_layer", seed: int) -> Problem:
    """Exact where float32 factors are rounded to TF32: it has float16's 11 significant bits."""
    return on_device(cast(integers(shape, torch.float16, op=op, seed=seed), torch.float32))


def decided(shape: Shape, dtype: torch.dtype, *, seed: int) -> Problem:
    """Normal inputs, where the first bias alone decides which hidden features are 0.

    However the products are rounded, the mask is the same; so this also serves TF32, and layers
    so large that some pre-activation is next to 0 in every draw.
    """
    batch, in_features, hidden, out = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    x, w1 = normal(batch, in_features).clamp(-4, 4), normal(hidden, in_features)
    w1 /= max(in_features, 1) ** 0.5
    reach = (x @ w1.T).abs().amax().item() + 1 if batch * hidden > 0 else 1.0
    b1 = reach * (normal(hidden).sign() + 0.05 * normal(hidden).clamp(-1, 1))
    inputs = {"x": x, "w1": w1, "w2": normal(out, hidden) / max(hidden, 1) ** 0.5, "b1": b1}
    problem = Problem("two_layer", inputs | {"b2": normal(out)}, normal(batch, out))
    return on_device(cast(problem, dtype))


@contextmanager
def poisoned():
    """``torch.empty`` gives NaN, so that an element nobody wrote cannot pass for a right one."""
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def ours(problem: Problem, **options) -> Results:
    with poisoned():
        return fused(problem, "triton", **options)


@contextmanager
def tf32():
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def truncated(problem: Problem) -> Results:
    """Plain torch on float32 factors cut to TF32's 10 bits of mantissa, as the matrix units do.

    cuBLAS rounds them to nearest in some kernels, which halves the error; torch's switch allows
    either. So this, and not what cuBLAS happens to do, is torch's own error with TF32.
    """

    def cut(t: Tensor) -> Tensor:
        return (t.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)

    x, w1, w2, b1, b2 = (problem.inputs[name] for name in ("x", "w1", "w2", "b1", "b2"))
    grad_y = problem.grad_out
    h = cut(x) @ cut(w1).T
    a = torch.relu(h if b1 is None else h + b1)
    y = cut(a) @ cut(w2).T
    grad_h = (cut(grad_y) @ cut(w2)) * (a > 0)
    return {
        "y": y if b2 is None else y + b2,
        "grad_x": cut(grad_h) @ cut(w1),
        "grad_w1": cut(grad_h).T @ cut(x),
        "grad_w2": cut(grad_y).T @ cut(a),
        "grad_b1": None if b1 is None else grad_h.sum(0),
        "grad_b2": None if b2 is None else grad_y.sum(0),
    }
