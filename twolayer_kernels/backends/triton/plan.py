"""How the work of one narrow backward is dealt to its programs, for the host and for the kernel.

The programs are, in this order: those of the first layer's weight, a tile of ``HIDDEN x IN`` each;
of the second layer's weight and both biases, a block of hidden features each; of the input, a tile
of ``batch x IN`` each. ``parts`` programs share the batch in each tile of the first two kinds. Then
each of them leaves a share of the gradient, and the last to arrive at the tile's counter adds up.
"""

from __future__ import annotations

from typing import NamedTuple

import triton


@triton.constexpr_function
def blocks_of(size: int, block: int) -> int:
    """How many blocks hold ``size``."""
    return -(-size // block)


@triton.constexpr_function
def share_offset(gradient: str, in_features: int, hidden_features: int, out_features: int) -> int:
    """Where the shares of a gradient (``"w1"``, ``"w2"``, ``"b1"``, ``"b2"``) begin in a part's.

    In elements; ``"end"`` is the size of all of them.
    """
    of_w1, of_w2 = hidden_features * in_features, out_features * hidden_features
    return {
        "w1": 0,
        "w2": of_w1,
        "b1": of_w1 + of_w2,
        "b2": of_w1 + of_w2 + hidden_features,
        "end": of_w1 + of_w2 + hidden_features + out_features,
    }[gradient]


@triton.constexpr_function
def counter_offset(gradient: str, hidden_blocks: int, in_blocks: int) -> int:
    """The first counter of a gradient, one a tile; ``"end"`` is the number of all counters."""
    of_w1 = hidden_blocks * in_blocks
    return {
        "w1": 0,
        "w2": of_w1,
        "b1": of_w1 + hidden_blocks,
        "b2": of_w1 + 2 * hidden_blocks,
        "end": of_w1 + 2 * hidden_blocks + 1,
    }[gradient]


class BackwardPlan(NamedTuple):
    """How many programs of each kind there are, and what they share."""

    of_first: int
    of_second: int
    of_input: int
    share_size: int  # float32 elements of one part; 0 where nothing is shared
    counters: int

    @property
    def programs(self) -> int:
        return self.of_first + self.of_second + self.of_input


def plan_backward(
    batch: int,
    in_features: int,
    hidden_features: int,
    out_features: int,
    needs: tuple[bool, bool, bool, bool, bool],
    blocks: tuple[int, int, int],
    parts: int,
) -> BackwardPlan:
    """The plan for the gradients that are needed, of x, w1, w2, b1 and b2.

    ``blocks`` are the tile's along the batch, the hidden and the input's features.
    """
    block_b, block_h, block_i = blocks
    hidden_blocks, in_blocks = blocks_of(hidden_features, block_h), blocks_of(in_features, block_i)
    return BackwardPlan(
        hidden_blocks * in_blocks * parts if needs[1] else 0,
        hidden_blocks * parts if any(needs[2:]) else 0,
        blocks_of(batch, block_b) * in_blocks if needs[0] else 0,
        share_offset("end", in_features, hidden_features, out_features) if parts > 1 else 0,
        counter_offset("end", hidden_blocks, in_blocks) if parts > 1 else 0,
    )
