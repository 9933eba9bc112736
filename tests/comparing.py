"""How results are compared: exactly, bit for bit, or within the error budget.

The budget, from the numerics contract: the error of a result is at most twice the
error of torch's own result in the same dtype, plus one rounding band. Precisely:

- The error of an element is its distance from the exact result (float64's; for float64
  itself, that of a wider type), in units of the element's *scale*: the root of the sum
  of the squares of the terms it is a sum of. The scale is the size the element would
  have were its terms of random sign, so one number holds for large and small elements,
  and cancellation is held against nobody.
- The error of a result is its largest element's. A small result is drawn several times
  over, for torch and for us alike, so that torch's luck does not decide.
- One rounding band is one unit in the last place of the result's largest element:
  ``torch.finfo(dtype).eps`` times its size in units of its scale, or times 1.
- An element of scale 0 is a sum of zeros and must be equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_SHOWN = 6
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _check_form(name: str, actual: Tensor | None, expected: Tensor | None) -> bool:
    """Whether there is something to compare; shape, dtype and presence must agree."""
    if actual is None or expected is None:
        if actual is not expected:
            raise AssertionError(f"{name}: expected {_form(expected)}, got {_form(actual)}")
        return False
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise AssertionError(f"{name}: expected {_form(expected)}, got {_form(actual)}")
    return True


def _form(t: Tensor | None) -> str:
    return "None" if t is None else f"{t.dtype} of shape {tuple(t.shape)}"


def _report(name: str, what: str, actual: Tensor, expected: Tensor, badness: Tensor) -> str:
    """Names the worst elements; ``badness`` is 0 where an element is right."""
    bad = badness > 0
    worst = badness.flatten().sort(descending=True).indices[: min(_SHOWN, int(bad.sum()))]
    lines = [f"{name}: {what}: {int(bad.sum())} of {bad.numel()} elements, the worst:"]
    for flat in worst.tolist():
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), badness.shape))
        got, wanted = actual[index].item(), expected[index].item()
        lines.append(f"  {list(index)}: got {got!r}, expected {wanted!r}")
    for axis, size in enumerate(bad.shape):
        others = [other for other in range(bad.dim()) if other != axis]
        hit = bad.any(dim=others).nonzero().flatten().tolist() if others else []
        if 0 < len(hit) < size:
            shown = ", ".join(map(str, hit[:_SHOWN])) + (", ..." if len(hit) > _SHOWN else "")
            lines.append(f"  axis {axis}: only at {shown} (of {size})")
    return "\n".join(lines)


def assert_equal(name: str, actual: Tensor | None, expected: Tensor | None) -> None:
    """Every element has the expected value; NaN equals NaN, and 0 equals -0."""
    if not _check_form(name, actual, expected):
        return
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    if not same.all():
        distance = (actual.double() - expected.double()).abs()
        distance = distance.nan_to_num(nan=float("inf")).masked_fill(same, 0)
        raise AssertionError(_report(name, "not equal", actual, expected, distance))


def assert_same_bits(name: str, actual: Tensor | None, expected: Tensor | None) -> None:
    """Every element has the expected bits."""
    if not _check_form(name, actual, expected):
        return
    bits = _BITS[actual.element_size()]
    differ = actual.contiguous().view(bits) != expected.contiguous().view(bits)
    if differ.any():
        raise AssertionError(_report(name, "other bits", actual, expected, differ.double()))


class Exact(NamedTuple):
    """An exact result as the sum of two float64 tensors, and the scale of its elements."""

    value: Tensor
    rest: Tensor
    scale: Tensor


class Compared(NamedTuple):
    """One draw of one result: ours, torch's and the exact one."""

    actual: Tensor
    torchs: Tensor
    exact: Exact


def scaled_error(result: Tensor, exact: Exact) -> Tensor:
    """The error of each element in units of its scale; infinite where one alone is NaN."""
    distance = (result.double() - exact.value - exact.rest).abs()
    error = torch.where(distance == 0, 0.0, distance / exact.scale)
    both_nan = result.isnan() & exact.value.isnan()
    return error.masked_fill(both_nan, 0).nan_to_num(nan=float("inf"))


def assert_within_budget(name: str, draws: Sequence[Compared]) -> None:
    """``error <= 2 * torch's error + one rounding band``, over all draws of one result."""
    for draw in draws:
        _check_form(name, draw.actual, draw.torchs)
    draws = [draw for draw in draws if draw.actual.numel() > 0]
    if not draws:
        return
    torchs_error = max(scaled_error(draw.torchs, draw.exact).max().item() for draw in draws)
    if not math.isfinite(torchs_error):
        raise AssertionError(f"{name}: torch's own result overflows; draw smaller inputs")
    eps = torch.finfo(draws[0].actual.dtype).eps
    largest = max(
        (draw.exact.value.abs() / draw.exact.scale).nan_to_num().amax().item() for draw in draws
    )
    budget = 2 * torchs_error + eps * max(1.0, largest)
    for actual, _, exact in draws:
        error = scaled_error(actual, exact)
        over = (error - budget).clamp(min=0)
        if over.any():
            what = (
                f"error {error.max().item() / eps:.3g} eps over the budget of {budget / eps:.3g},"
                f" torch's own error being {torchs_error / eps:.3g}"
            )
            raise AssertionError(_report(name, what, actual, exact.value, over))
