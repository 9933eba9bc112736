"""Inputs for the fused operations, and three ways to get results: ours, plain torch's, float64's.

A problem holds the inputs of ``two_layer`` or ``linear_relu`` and the gradient of the output.
Results are dicts from names (``y``, ``grad_x``, ``grad_w1``, ...) to tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from twolayer_kernels import functional

from .comparing import Compared, Exact, assert_equal, assert_within_budget
from .shapes import LAYOUTS, Shape
from .sound_torch import sound_torch

BACKENDS = ("cpu", "torch", "reference")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
OPS = ("two_layer", "linear_relu")

# Tried first; where the activation or its gradient then overflow the significand, smaller ones.
_LARGEST_INTEGER = {torch.bfloat16: 1, torch.float16: 2, torch.float32: 4, torch.float64: 8}

Results = dict[str, Tensor | None]


def dtype_id(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Problem:
    """The inputs of one call, ``x, w1, w2, b1, b2`` or ``x, w, b``, and the output's gradient."""

    op: str
    inputs: dict[str, Tensor | None]
    grad_out: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.grad_out.dtype


def _tensor_shapes(op: str, shape: Shape, bias: str) -> dict[str, tuple[int, ...] | None]:
    batch, in_features, hidden, out = shape
    first = (hidden,) if bias in ("both", "first") else None
    if op == "linear_relu":
        return {
            "x": (batch, in_features),
            "w": (hidden, in_features),
            "b": first,
            "grad": (batch, hidden),
        }
    second = (out,) if bias in ("both", "second") else None
    return {
        "x": (batch, in_features),
        "w1": (hidden, in_features),
        "w2": (out, hidden),
        "b1": first,
        "b2": second,
        "grad": (batch, out),
    }


def _build(op, shape, bias, layout, draw) -> Problem:
    """``layout`` names one layout for all tensors, or maps tensor names to layouts."""
    tensors = {}
    for name, size in _tensor_shapes(op, shape, bias).items():
        chosen = layout if isinstance(layout, str) else layout.get(name, "contiguous")
        tensors[name] = None if size is None else LAYOUTS[chosen](draw(name, size))
    return Problem(op, tensors, tensors.pop("grad"))


def integers(
    shape: Shape, dtype: torch.dtype, *, op="two_layer", bias="both", layout="contiguous", seed=0
) -> Problem:
    """Small random integers: every sum and product is exact, in any order."""
    for largest in range(_LARGEST_INTEGER[dtype], 0, -1):
        generator = torch.Generator().manual_seed(seed)

        def draw(name, size, largest=largest, generator=generator):
            return torch.randint(-largest, largest + 1, size, generator=generator).to(dtype)

        problem = _build(op, shape, bias, layout, draw)
        if _is_exact(problem):
            return problem
    raise AssertionError(f"no integers are small enough for {shape} in {dtype}")


def _is_exact(problem: Problem) -> bool:
    """Whether the activation fits the dtype, and every partial sum the accumulator."""
    results, magnitudes = exact(problem), exact(_magnitudes(problem))
    accumulator = 2**53 if problem.dtype == torch.float64 else 2**24
    return all(
        torch.equal(results[name].to(problem.dtype).double(), results[name])
        for name in ("a", "grad_h")
    ) and all(
        size.amax().item() < accumulator
        for size in magnitudes.values()
        if size is not None and size.numel() > 0
    )


def _magnitudes(problem: Problem) -> Problem:
    inputs = {name: None if t is None else t.abs() for name, t in problem.inputs.items()}
    return Problem(problem.op, inputs, problem.grad_out.abs())


def randoms(
    shape: Shape, dtype: torch.dtype, *, op="two_layer", bias="both", layout="contiguous", seed=0
) -> Problem:
    """Normal inputs with weights of a trained network's size.

    Drawn again until no pre-activation lies so near 0 that rounding could choose its sign:
    there the gradient jumps, and no error budget could hold.
    """
    generator = torch.Generator().manual_seed(seed)
    # Results narrower than float32 accumulate in float32 all the same.
    doubt = 8 * 2.0 ** (-53 if dtype == torch.float64 else -24)

    def draw(name: str, size: tuple[int, ...]) -> Tensor:
        values = torch.randn(size, generator=generator, dtype=torch.float64)
        if name.startswith("w"):
            values /= max(size[1], 1) ** 0.5
        return values.to(dtype)

    for _ in range(50):
        problem = _build(op, shape, bias, layout, draw)
        h, magnitude = _pre_activation(problem), _pre_activation(_magnitudes(problem))
        if not ((h.abs() <= doubt * magnitude) & (magnitude > 0)).any():
            return problem
    raise AssertionError(f"every draw of {shape} has a pre-activation next to 0")


def _pre_activation(problem: Problem) -> Tensor:
    x, w, b = _first_layer(problem)
    h = x.double() @ w.double().T
    return h if b is None else h + b.double()


def _first_layer(problem: Problem) -> tuple[Tensor, Tensor, Tensor | None]:
    inputs = problem.inputs
    if problem.op == "linear_relu":
        return inputs["x"], inputs["w"], inputs["b"]
    return inputs["x"], inputs["w1"], inputs["b1"]


def exact(problem: Problem) -> Results:
    """The contract's formulas in float64, with the activation ``a`` and ``grad_h`` beside them."""
    return _formulas(problem, lambda t: t.double())


def _formulas(problem: Problem, wide: Callable[[Tensor], Any]) -> dict[str, Any]:
    """The contract's formulas on the inputs as ``wide`` gives them.

    With squares for inputs they sum the squares of every term: the squares of the scales
    that errors are measured in. The ReLU's mask is always that of the true values.
    """
    x, w, b, w2, b2, grad_out, mask = (
        None if t is None else wide(t)
        for t in (
            *_first_layer(problem),
            problem.inputs.get("w2"),
            problem.inputs.get("b2"),
            problem.grad_out,
            _pre_activation(problem) > 0,
        )
    )
    h = x @ w.T
    a = (h if b is None else h + b) * mask
    if problem.op == "linear_relu":
        grad_h = grad_out * mask
        results = {"a": a, "grad_h": grad_h, "y": a}
        names = ("grad_x", "grad_w", "grad_b")
    else:
        grad_h = (grad_out @ w2) * mask
        y = a @ w2.T
        results = {"a": a, "grad_h": grad_h, "y": y if b2 is None else y + b2}
        results["grad_w2"] = grad_out.T @ a
        results["grad_b2"] = None if b2 is None else grad_out.sum(0)
        names = ("grad_x", "grad_w1", "grad_b1")
    gradients = (grad_h @ w, grad_h.T @ x, None if b is None else grad_h.sum(0))
    return results | dict(zip(names, gradients, strict=True))


def measures(problem: Problem) -> dict[str, Exact | None]:
    """What errors are measured against: each result in a type wider than the problem's."""
    if problem.dtype == torch.float64:
        wider = _formulas(problem, lambda t: t.double().numpy().astype(np.longdouble))
        pairs = {name: _in_two(wide) for name, wide in wider.items()}
    else:
        pairs = {
            name: None if t is None else (t, torch.zeros_like(t))
            for name, t in exact(problem).items()
        }
    squares = _formulas(problem, lambda t: t.double().square())
    return {
        name: None if pair is None else Exact(*pair, squares[name].sqrt())
        for name, pair in pairs.items()
    }


def _in_two(wide: np.ndarray | None) -> tuple[Tensor, Tensor] | None:
    if wide is None:
        return None
    value = wide.astype(np.float64)
    return torch.from_numpy(value), torch.from_numpy((wide - value).astype(np.float64))


def _differentiate(problem: Problem, function, needs: tuple[str, ...] | None = None) -> Results:
    """The output and the gradients of the inputs named in ``needs`` (``None``: of all)."""
    leaves = {name: None if t is None else t.detach() for name, t in problem.inputs.items()}
    wanted = [n for n, t in leaves.items() if t is not None and (needs is None or n in needs)]
    for name in wanted:
        leaves[name].requires_grad_()
    with sound_torch(problem.dtype):
        y = function(**leaves)
        results: Results = {"y": y.detach()} | {f"grad_{name}": None for name in leaves}
        if wanted:
            gradients = torch.autograd.grad(y, [leaves[name] for name in wanted], problem.grad_out)
            results |= {f"grad_{n}": g for n, g in zip(wanted, gradients, strict=True)}
    return results


def fused(
    problem: Problem, backend: str | None, *, needs: tuple[str, ...] | None = None, **options
) -> Results:
    """Ours, through the public function and autograd."""
    function = getattr(functional, problem.op)
    return _differentiate(
        problem, lambda **inputs: function(**inputs, backend=backend, **options), needs
    )


def plain(problem: Problem) -> Results:
    """Plain torch in the same dtype."""

    def two_layer(x, w1, w2, b1, b2):
        return linear(torch.relu(linear(x, w1, b1)), w2, b2)

    def linear_relu(x, w, b):
        return torch.relu(linear(x, w, b))

    return _differentiate(problem, two_layer if problem.op == "two_layer" else linear_relu)


def check_exact(problem: Problem, results: Results) -> None:
    """Equal to the float64 results rounded once, which integers make exact."""
    wanted = exact(problem)
    for name, actual in results.items():
        expected = wanted[name]
        assert_equal(name, actual, None if expected is None else expected.to(problem.dtype))


def check_budget(problems: list[Problem], all_results: list[Results]) -> None:
    """Within the error budget, over several draws of one problem."""
    plains, exacts = [*map(plain, problems)], [*map(measures, problems)]
    for name, result in all_results[0].items():
        if result is None or plains[0][name] is None:
            assert_equal(name, result, plains[0][name])
            continue
        parts = zip(all_results, plains, exacts, strict=True)
        assert_within_budget(
            name, [Compared(ours[name], torchs[name], exact[name]) for ours, torchs, exact in parts]
        )


def draw_count(shape: Shape, dtype: torch.dtype) -> int:
    """How many draws make the largest error of the smallest result a steady figure."""
    batch, in_features, hidden, out = shape
    smallest = max(1, min(batch * out, out, hidden))
    products = max(1, batch * hidden * (in_features + out))
    affordable = (15_000_000 if dtype == torch.float64 else 30_000_000) // products
    return max(1, min(64, 512 // smallest, affordable))
