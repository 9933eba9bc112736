"""What is timed on a GPU, as data, in the order of importance: a stop loses the least."""

from __future__ import annotations

from typing import NamedTuple

from tests.shapes import BENCH_SHAPES, Shape

TUTORIAL = BENCH_SHAPES[0]
TABULAR = (Shape(1024, 64, 64, 4), Shape(4096, 128, 256, 8), Shape(65536, 64, 64, 64))
TRANSFORMER = (
    Shape(8192, 2048, 8192, 2048),
    Shape(4096, 1024, 4096, 1024),
    Shape(16384, 4096, 16384, 4096),
)

BOTH, FORWARD = "forward+backward", "forward"


class Case(NamedTuple):
    """One row of the table."""

    shape: Shape
    dtype: str  # "float32" or "bfloat16"
    tf32: bool = False  # whether float32 factors may be rounded to TF32
    work: str = BOTH

    @property
    def precision(self) -> str:
        return "tf32" if self.tf32 else self.dtype

    @property
    def id(self) -> str:
        return f"{self.work}-{self.shape}-{self.precision}"

    @property
    def small(self) -> bool:
        """Whether the calls may take longer on the host than on the GPU."""
        return self.shape not in TRANSFORMER

    @property
    def input_gradient(self) -> bool:
        """Layers of a transformer pass one on; the data of a table or a tutorial needs none."""
        return not self.small and self.work == BOTH

    @property
    def products(self) -> int:
        """The matrix products of the work: two forward, three or four backward."""
        return 2 if self.work == FORWARD else 5 + self.input_gradient

    @property
    def operations(self) -> int:
        """Multiply-adds count two: h, dw1 and dx are of one size, y, dh and dw2 of another."""
        batch, in_features, hidden, out = self.shape
        of_first = 1 if self.work == FORWARD else 2 + self.input_gradient
        of_second = 1 if self.work == FORWARD else 3
        return 2 * batch * hidden * (of_first * in_features + of_second * out)


_LARGE, _MIDDLE, _LARGEST = TRANSFORMER
_BACKWARD = [
    Case(TUTORIAL, "float32"),
    Case(_LARGE, "bfloat16"),
    Case(_MIDDLE, "float32"),
    Case(_MIDDLE, "bfloat16"),
    Case(_LARGEST, "bfloat16"),
    Case(_LARGE, "float32"),
    Case(_MIDDLE, "float32", tf32=True),
    *(Case(shape, dtype) for shape in reversed(TABULAR) for dtype in ("float32", "bfloat16")),
    Case(_LARGE, "float32", tf32=True),
]
_FORWARD = [case._replace(work=FORWARD) for case in _BACKWARD]

CASES = [_BACKWARD[0], _BACKWARD[1], _BACKWARD[2], _FORWARD[0], *_BACKWARD[3:], *_FORWARD[1:]]
