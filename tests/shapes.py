"""The sizes and memory layouts that tests and benches share, as data."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Shape(NamedTuple):
    """The four sizes of ``Linear -> ReLU -> Linear``."""

    batch: int
    in_features: int
    hidden_features: int
    out_features: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


# What the benches time: the tutorial's shape, the middle and the large regime, a
# narrow classifier, one sample, and a shape where the call costs more than the sums.
BENCH_SHAPES = (
    Shape(64, 1000, 100, 10),
    Shape(256, 512, 512, 512),
    Shape(512, 1024, 4096, 1024),
    Shape(64, 256, 256, 10),
    Shape(1, 64, 64, 4),
    Shape(8, 8, 8, 8),
)

# One size at a time walks over the edges of register tiles (6, 8, 16, 32, 48, 64) and
# of cache blocks (256, 512, 1024), while the other three stay odd and small.
_TILE_EDGES = (1, 2, 3, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65)
_BLOCK_EDGES = (127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025)
_SMALL = Shape(13, 19, 11, 7)

EDGE_SHAPES = tuple(
    _SMALL._replace(**{name: size}) for name in Shape._fields for size in _TILE_EDGES + _BLOCK_EDGES
)

# Several sizes cross an edge at once.
MIXED_SHAPES = (
    Shape(1, 1, 1, 1),
    Shape(1, 1000, 100, 10),
    Shape(2, 3, 4, 1),
    Shape(97, 101, 103, 107),
    Shape(64, 64, 64, 64),
    Shape(65, 129, 257, 33),
    Shape(63, 127, 255, 31),
    Shape(257, 513, 65, 1),
    Shape(6, 1025, 129, 10),
    Shape(18, 512, 192, 128),
    Shape(67, 1543, 131, 10),
    Shape(3000, 33, 17, 3),
    Shape(1, 2, 3000, 5),
    Shape(5, 3, 2, 1100),
)

# More than a block of rows, of columns and of the sum at once, in each product; the last
# one's hidden layer is too large to be held at once, so the batch is cut into pieces.
BLOCK_SHAPES = (
    Shape(300, 1030, 70, 1030),
    Shape(2100, 30, 250, 3),
    Shape(250, 20, 1100, 270),
    Shape(1100, 5, 4200, 3),
)

EMPTY_SHAPES = (
    Shape(0, 5, 4, 3),
    Shape(3, 0, 4, 2),
    Shape(3, 4, 0, 2),
    Shape(3, 4, 5, 0),
    Shape(0, 0, 0, 0),
)

# A few that together meet a main loop, whole vectors and a remainder in every size:
# for what is checked in many variants.
FEW_SHAPES = (Shape(5, 7, 6, 1), Shape(33, 70, 65, 10), Shape(70, 250, 40, 17))


def size_id(shape: Shape) -> str:
    return str(shape)


Layout = Callable[[Tensor], Tensor]


def _surrounded(t: Tensor, gap: float = float("nan")) -> Tensor:
    """``t`` cut out of a larger buffer at an odd offset; the rest of the buffer is NaN."""
    buffer = t.new_full([size + 5 for size in t.shape], gap)
    view = buffer[tuple(slice(3, 3 + size) for size in t.shape)]
    return view.copy_(t)


def _every_other(t: Tensor) -> Tensor:
    buffer = t.new_full([2 * size + 1 for size in t.shape], float("nan"))
    view = buffer[tuple(slice(1, None, 2) for _ in t.shape)]
    return view.copy_(t)


def _transposed(t: Tensor) -> Tensor:
    return t.T.contiguous().T if t.dim() == 2 else t.clone()


def _same_row(t: Tensor) -> Tensor:
    """The first row (of a vector: the first element) everywhere, at stride 0."""
    return t[:1].clone().expand(t.shape) if t.shape[0] > 0 else t.clone()


def _same_column(t: Tensor) -> Tensor:
    return t[..., :1].clone().expand(t.shape) if t.shape[-1] > 0 else t.clone()


def _same_everywhere(t: Tensor) -> Tensor:
    return t.flatten()[0].clone().expand(t.shape) if t.numel() > 0 else t.clone()


def _far_rows(t: Tensor) -> Tensor:
    """Rows a large power of two apart, so that they fall into one set of the cache."""
    if t.dim() != 2 or t.shape[1] > 2048:
        return t.clone()
    buffer = t.new_full((t.shape[0], 2048), float("nan"))
    return buffer[:, : t.shape[1]].copy_(t)


def _transposed_every_other(t: Tensor) -> Tensor:
    return _every_other(t.T).T if t.dim() == 2 else _every_other(t)


# The layouts that broadcast change the values too; an oracle reads the tensors that come out.
LAYOUTS: dict[str, Layout] = {
    "contiguous": torch.clone,
    "transposed": _transposed,
    "offset": _surrounded,
    "every_other": _every_other,
    "transposed_every_other": _transposed_every_other,
    "same_row": _same_row,
    "same_column": _same_column,
    "same_everywhere": _same_everywhere,
    "far_rows": _far_rows,
}


# NumPy has layouts that torch has not: negative strides, and elements off their alignment.


def _reversed(array: np.ndarray) -> np.ndarray:
    return array[(slice(None, None, -1),) * array.ndim].copy()[
        (slice(None, None, -1),) * array.ndim
    ]


def _reversed_columns_every_other(array: np.ndarray) -> np.ndarray:
    buffer = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
    view = buffer[..., ::-2]
    view[...] = array
    return view


def _unaligned(array: np.ndarray) -> np.ndarray:
    buffer = np.full(array.nbytes + 1, 0xFF, np.uint8)
    view = buffer[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _field_of_records(array: np.ndarray) -> np.ndarray:
    """Strides that are no whole number of elements."""
    records = np.zeros(array.shape, [("value", array.dtype), ("flag", np.uint8)])
    records["value"] = array
    return records["value"]


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.copy()
    view.flags.writeable = False
    return view


def _as_torch_lays_out(layout: Layout) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: layout(torch.from_numpy(array.copy())).numpy()


ARRAY_LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    name: _as_torch_lays_out(layout) for name, layout in LAYOUTS.items()
} | {
    "reversed": _reversed,
    "reversed_columns_every_other": _reversed_columns_every_other,
    "unaligned": _unaligned,
    "field_of_records": _field_of_records,
    "read_only": _read_only,
}
