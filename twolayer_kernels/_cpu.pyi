"""Types of the compiled module; its contracts are in csrc/two_layer.h."""

import enum
from collections.abc import Callable
from typing import Any

class DType(enum.Enum):
    float32 = ...
    float64 = ...
    bfloat16 = ...
    float16 = ...

def use_exchange_api(capsule: object) -> None: ...
def watch(
    layer_type: type,
    tensor_types: tuple[type, ...],
    questions: tuple[Callable[[], object], ...],
    variables: tuple[tuple[dict[str, Any], str, object], ...],
    global_hooks: tuple[dict[Any, Any], ...],
) -> None: ...
def unseen(*arguments: object) -> bool: ...
def plain_parameters(linear1: object, linear2: object, /) -> tuple[Any, Any, Any, Any] | None: ...
def linear_relu_forward(threads: int, x: Any, w: Any, b: Any, a: Any) -> None: ...
def linear_relu_backward(
    threads: int, grad_a: Any, x: Any, w: Any, a: Any, grad_x: Any, grad_w: Any, grad_b: Any
) -> None: ...
def two_layer_forward(
    threads: int, x: Any, w1: Any, w2: Any, b1: Any, b2: Any, a: Any, y: Any
) -> None: ...
def two_layer_backward(
    threads: int,
    grad_y: Any,
    x: Any,
    w1: Any,
    w2: Any,
    b1: Any,
    a: Any,
    grad_x: Any,
    grad_w1: Any,
    grad_w2: Any,
    grad_b1: Any,
    grad_b2: Any,
) -> None: ...
def features_first(
    dtype: DType, batch: int, in_features: int, hidden_features: int, out_features: int
) -> bool: ...
def matmul(
    threads: int,
    a: Any,
    b: Any,
    c: Any,
    *,
    row_bias: Any = None,
    col_bias: Any = None,
    relu: bool = False,
    mask: Any = None,
    row_sum: Any = None,
    col_sum: Any = None,
) -> None: ...
def fma_rate(dtype: DType, threads: int, seconds: float) -> float: ...
def default_threads() -> int: ...
def processors() -> int: ...
def processor_quota(root: str, own: str) -> float: ...
def times_woken() -> int: ...
def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...

class Training:
    """The training loop of one network; csrc/training/training.h is the contract."""

    taken: int  # steps, in all runs

    def __init__(
        self,
        threads: int,
        w1: Any,
        w2: Any,
        b1: Any,
        b2: Any,
        batch: int,
        optimizer: str,
        movers: list[dict[str, Any] | None],
        loss: str,
        loss_options: dict[str, Any],
    ) -> None: ...
    def run(
        self,
        x: Any,
        target: Any,
        classes: Any,
        weight: Any,
        order: Any,
        first: Any,
        size: Any,
        rates: Any,
        losses: Any,
        seconds: float,
        stop_at_nonfinite: bool,
    ) -> tuple[int, bool]: ...
