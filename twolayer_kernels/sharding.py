"""The network whose weights are DTensors: tensor parallelism, column-wise then row-wise.

Each process holds some hidden features: rows of the first weight, columns of the second. The fused
layers run on them without any exchange; the partial outputs are summed over the processes, then the
second bias is added. As in Megatron-LM (https://arxiv.org/abs/1909.08053, section 3).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module

from . import functional
from .transparency import has_global_hooks, is_observed


def _is_of_a_style(hook: Any, prepare: str, *expected: Any) -> bool:
    """Whether ``distribute_module`` made the hook, for a parallel style with these layouts."""
    if getattr(hook, "__globals__", None) is not distribute_module.__globals__:
        return False
    held = [cell.cell_contents for cell in hook.__closure__ or ()]
    return any(
        isinstance(fn, partial) and fn.func.__name__ == prepare and fn.args == expected
        for fn in held
    )


def _has_only_hooks_of_its_style(layer: nn.Module, taken: Any, given: Any) -> bool:
    before, after = layer._forward_pre_hooks, layer._forward_hooks
    return (
        not (layer._backward_hooks or layer._backward_pre_hooks or has_global_hooks())
        and type(layer) is nn.Linear
        and "forward" not in layer.__dict__
        and len(before) == len(after) == 1
        and all(_is_of_a_style(h, "_prepare_input_fn", *taken) for h in before.values())
        and all(_is_of_a_style(h, "_prepare_output_fn", given, True) for h in after.values())
    )


def does_the_work_of(linear1: nn.Module, linear2: nn.Module, x: Any) -> bool:
    """Whether :func:`two_layer` does all that calls of these layers would.

    So it is for layers without hooks, and for those of ``ColwiseParallel()`` and
    ``RowwiseParallel()`` with their default layouts, whose hooks hand over what is computed here
    in one go. Others are called.
    """
    if not (is_observed(linear1) or is_observed(linear2)):
        return type(linear1) is type(linear2) is nn.Linear and not has_global_hooks()
    whole, part = (Replicate(),), (Shard(-1),)
    return (
        type(x) is Tensor
        and _has_only_hooks_of_its_style(linear1, (whole, whole), part)
        and _has_only_hooks_of_its_style(linear2, (part, part), whole)
    )


def _check(name: str, parameter: Any, mesh: Any, wanted: tuple[Any, ...]) -> None:
    found = parameter.placements if isinstance(parameter, DTensor) else None
    if found != wanted or parameter.device_mesh != mesh:
        raise ValueError(
            f"FusedTwoLayer: {name} must be placed {wanted} beside the other parameters, got"
            f" {found}. Tensor parallelism takes linear1 column-wise and linear2 row-wise on a mesh"
            " of one dimension"
        )


def two_layer(
    x: Tensor, w1: Any, w2: Any, b1: Any, b2: Any, *, recompute: bool, backend: str | None
) -> Tensor:
    """``functional.two_layer`` for DTensor parameters.

    Args:
        x: ``(..., in_features)``, a plain tensor, the same in every process, or a replicated
            DTensor.
        w1, b1: sharded along the hidden features, ``Shard(0)``.
        w2: sharded along the hidden features, ``Shard(1)``.
        b2: replicated.

    Returns:
        ``(..., out_features)``, the same in every process; a DTensor where ``x`` is one.

    Raises:
        ValueError: the parameters are placed otherwise.
    """
    mesh = w1.device_mesh if isinstance(w1, DTensor) else w2.device_mesh
    placements: dict[str, tuple[Any, Any]] = {
        "linear1.weight": (w1, Shard(0)),
        "linear2.weight": (w2, Shard(1)),
    }
    if b1 is not None:
        placements["linear1.bias"] = (b1, Shard(0))
    if b2 is not None:
        placements["linear2.bias"] = (b2, Replicate())
    for name, (parameter, placement) in placements.items():
        _check(name, parameter, mesh, (placement,))

    spread = isinstance(x, DTensor)
    shared: Any = x if spread else DTensor.from_local(x, mesh, [Replicate()], run_check=False)
    if shared.placements != (Replicate(),):
        raise ValueError(f"FusedTwoLayer: x must be replicated, got {shared.placements}")
    # Each process has the part of x's gradient that its hidden features give.
    here = shared.to_local(grad_placements=[Partial()])
    part = functional.two_layer(
        here,
        w1.to_local(),
        w2.to_local(),
        None if b1 is None else b1.to_local(),
        None,
        recompute=recompute,
        backend=backend,
    )
    y: Any = DTensor.from_local(part, mesh, [Partial()], run_check=False).redistribute(
        placements=[Replicate()]
    )
    if b2 is not None:
        y = y + b2
    result: Tensor = y if spread else y.to_local()
    return result
