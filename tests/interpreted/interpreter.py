"""Triton's interpreter, repaired where bfloat16 is wrong in it, and hastened.

The interpreter keeps bfloat16 as bits in uint16, multiplies and compares those bits, and truncates
where the hardware rounds to the nearest (triton-lang/triton#11585). Here every operation on
bfloat16 goes through float32 and is rounded once, ties to even.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
import triton.language as tl
from threadpoolctl import threadpool_limits
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, InterpreterOptions, TensorHandle

UNREPAIRED = {
    name: getattr(InterpreterBuilder, name)
    for name in ("cast_impl", "create_fp_to_fp", "create_dot", "binary_op")
}


def widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits as float32, which is exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values: np.ndarray) -> np.ndarray:
    """The bits of the bfloat16 nearest to each float32, ties to even; NaN stays NaN."""
    bits = values.astype(np.float32).view(np.uint32)
    nearest = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(values), 0x7FC0, nearest).astype(np.uint16)


def _is_bfloat16(handle: TensorHandle) -> bool:
    return handle.dtype.scalar == tl.bfloat16


def _wide(handle: TensorHandle) -> TensorHandle:
    return TensorHandle(widened(handle.data), tl.float32) if _is_bfloat16(handle) else handle


def _cast(builder, source, dst_type):
    if dst_type.scalar == source.dtype.scalar:
        return source
    wide = _wide(source)
    if dst_type.scalar == tl.bfloat16:
        return TensorHandle(rounded(wide.data.astype(np.float32)), tl.bfloat16)
    return UNREPAIRED["cast_impl"](builder, wide, dst_type)


def _fp_to_fp(builder, source, dst_type, rounding_mode):
    if tl.bfloat16 in (source.dtype.scalar, dst_type.scalar):
        return _cast(builder, source, dst_type)
    return UNREPAIRED["create_fp_to_fp"](builder, source, dst_type, rounding_mode)


def _dot(builder, a, b, *rest):
    wide = (TensorHandle(_wide(t).data.astype(np.float32), tl.float32) for t in (a, b))
    return UNREPAIRED["create_dot"](builder, *wide, *rest)


def _binary(builder, left, right, op):
    if not _is_bfloat16(left):
        return UNREPAIRED["binary_op"](builder, left, right, op)
    result = op(widened(left.data), widened(right.data))
    if result.dtype == np.bool_:
        return TensorHandle(result, tl.int1)
    return TensorHandle(rounded(result), tl.bfloat16)


def repair(monkeypatch) -> None:
    """Makes bfloat16 right."""
    repaired = (_cast, _fp_to_fp, _dot, _binary)
    for name, method in zip(UNREPAIRED, repaired, strict=True):
        monkeypatch.setattr(InterpreterBuilder, name, method)


def unrepair(monkeypatch) -> None:
    """Puts the interpreter's own bfloat16 back."""
    for name, method in UNREPAIRED.items():
        monkeypatch.setattr(InterpreterBuilder, name, method)


class _Kept:
    """What a launch is given to undo: nothing."""

    def restore(self) -> None:
        pass


@contextmanager
def hastened():
    """Makes launches several times faster, most of all beside a busy process.

    - Every launch and every call of a device function replaces all of ``triton.language``; once for
      each module is enough.
    - Every sum of integers is computed once more in 64 bits, to see whether 32 overflow. The sizes
      here are too small for that.
    - The products of tiles are so small that threads only wait for each other.
    """
    patch, scopes, threads = interpreter._patch_lang, {}, torch.get_num_threads()

    def patch_once(fn):
        if fn.__module__ not in scopes:
            scopes[fn.__module__] = patch(fn)
        return _Kept()

    options = InterpreterOptions(sanitize_overflow=False)
    with pytest.MonkeyPatch.context() as monkeypatch, threadpool_limits(1, user_api="blas"):
        monkeypatch.setattr(interpreter, "_patch_lang", patch_once)
        monkeypatch.setattr(interpreter.interpreter_builder, "options", options)
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)
    for scope in reversed(scopes.values()):
        scope.restore()
