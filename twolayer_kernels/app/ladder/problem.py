"""What both sides of a rung start from: data, initial weights, dtype, device, learning rate."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]

BATCH, IN_FEATURES, HIDDEN_FEATURES, OUT_FEATURES = 64, 1000, 100, 10


class Weights(NamedTuple):
    """As the tutorials write them: ``w1`` is (in, hidden), ``w2`` is (hidden, out)."""

    w1: Array
    w2: Array
    b1: Array
    b2: Array


@dataclass(frozen=True)
class Problem:
    """Random data and weights from one seed; everything a rung hands out is a fresh copy.

    Args:
        seed: of data, weights and random choices.
        dtype, device: of the torch rungs; the NumPy rungs take the dtype and run on the CPU.
        backend: of the fused side's torch calls, see ``functional.two_layer``.
        feature_order: a permutation of the input features, the same in ``x`` and in the first
            layer's weights. It changes no result but the rounding: how far two right answers
            may lie apart is measured with it.
    """

    seed: int
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    backend: str | None = None
    feature_order: Array | None = field(default=None, compare=False)

    def _ordered(self, array: Array, axis: int) -> Array:
        return array if self.feature_order is None else array.take(self.feature_order, axis)

    def _draw(self, *shape: int, stream: int) -> Array:
        dtype = np.float64 if self.dtype == torch.float64 else np.float32
        return np.random.default_rng((self.seed, stream)).standard_normal(shape).astype(dtype)

    def arrays(self) -> tuple[Array, Array]:
        """``x`` (batch, in) and the target ``y`` (batch, out), standard normal."""
        x = self._ordered(self._draw(BATCH, IN_FEATURES, stream=0), 1)
        return x, self._draw(BATCH, OUT_FEATURES, stream=1)

    def tensors(self) -> tuple[Tensor, Tensor]:
        x, y = self.arrays()
        return self.tensor(x), self.tensor(y)

    def weights(self) -> Weights:
        """Standard normal weights and biases."""
        return Weights(
            self._ordered(self._draw(IN_FEATURES, HIDDEN_FEATURES, stream=2), 0),
            self._draw(HIDDEN_FEATURES, OUT_FEATURES, stream=3),
            self._draw(HIDDEN_FEATURES, stream=4),
            self._draw(OUT_FEATURES, stream=5),
        )

    def tensor(self, array: Array) -> Tensor:
        """A contiguous copy, also of a transposed view: each side has the layout it says."""
        array = np.ascontiguousarray(array)
        return torch.tensor(array, dtype=self.dtype, device=self.device)

    def parameter(self, array: Array) -> Tensor:
        return self.tensor(array).requires_grad_()

    def linears(self, bias: bool) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        """Input, middle and output layer with torch's own default initialisation."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            widths = (
                (IN_FEATURES, HIDDEN_FEATURES),
                (HIDDEN_FEATURES, HIDDEN_FEATURES),
                (HIDDEN_FEATURES, OUT_FEATURES),
            )
            layers = [nn.Linear(*width, bias, dtype=self.dtype) for width in widths]
        if self.feature_order is not None:
            order = torch.as_tensor(self.feature_order)
            layers[0].weight.data = layers[0].weight.data[:, order].contiguous()
        first, middle, last = (copy.deepcopy(layer).to(self.device) for layer in layers)
        return first, middle, last

    def normal_linears(self) -> tuple[nn.Linear, nn.Linear]:
        """Two layers without bias whose weights are those of :meth:`weights`."""
        first, _, last = self.linears(bias=False)
        w1, w2, _, _ = self.weights()
        with torch.no_grad():
            first.weight.copy_(self.tensor(w1.T))
            last.weight.copy_(self.tensor(w2.T))
        return first, last
