"""Which modules ``fit`` trains, and the parameters in the order of the engine."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

from .. import dispatch
from ..fusing import FusedActivation, FusedFirst, FusedSecond
from ..modules import FusedTwoLayer, TwoLayerNet

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

WRITE_THE_LOOP = (
    "; write the loop then: loss = loss_fn(model(x), y); optimizer.zero_grad(); loss.backward();"
    " optimizer.step()"
)


class Network(NamedTuple):
    """The parameters of a two-layer network; biases may be missing."""

    w1: Tensor
    w2: Tensor
    b1: Tensor | None
    b2: Tensor | None

    @property
    def in_features(self) -> int:
        return self.w1.shape[1]

    @property
    def out_features(self) -> int:
        return self.w2.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.w1.dtype


_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")


def _refuse(what: str) -> NotImplementedError:
    return NotImplementedError(f"fit: {what}{WRITE_THE_LOOP}")


def _layers(model: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module | None]:
    """First layer, second layer, and the activation where it is a module."""
    if type(model) in (FusedTwoLayer, TwoLayerNet):
        return model.get_submodule("linear1"), model.get_submodule("linear2"), None
    if type(model) is nn.Sequential:
        children = list(model.children())
        kinds = [type(child) for child in children]
        if kinds in ([nn.Linear, nn.ReLU, nn.Linear], [FusedFirst, FusedActivation, FusedSecond]):
            return children[0], children[2], children[1]
        raise TypeError(
            "fit: a Sequential must be Linear, ReLU, Linear, got"
            f" {', '.join(kind.__name__ for kind in kinds) or 'an empty one'}"
        )
    raise TypeError(
        "fit: model must be a FusedTwoLayer, a TwoLayerNet or a Sequential of Linear, ReLU,"
        f" Linear, got {type(model).__name__}{WRITE_THE_LOOP}"
    )


def _check_unobserved(name: str, module: nn.Module) -> None:
    if any(getattr(module, hooks) for hooks in _HOOKS):
        raise _refuse(f"{name} has hooks, which it would not run")
    if "forward" in vars(module):
        raise _refuse(f"{name} has a forward of its own")


def network_of(model: nn.Module) -> Network:
    """The parameters of ``model``, if nothing but its own layers has a say in its steps.

    Raises:
        TypeError: ``model`` is no two-layer network.
        NotImplementedError: hooks, replaced layers, a device or dtype that the engine lacks.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"fit: model must be a torch.nn.Module, got {type(model).__name__}")
    first, second, activation = _layers(model)
    if any(getattr(module_hooks, hooks) for hooks in _GLOBAL_HOOKS):
        raise _refuse("hooks on all modules are set, which it would not run")
    for name, module in (("the model", model), ("linear1", first), ("linear2", second)):
        _check_unobserved(name, module)
    if activation is not None:
        _check_unobserved("the activation", activation)
    for name, layer, fused in (("linear1", first, FusedFirst), ("linear2", second, FusedSecond)):
        if type(layer) not in (nn.Linear, fused):
            raise _refuse(f"{name} is a {type(layer).__name__}, not a plain nn.Linear")
        if set(layer._parameters) != {"weight", "bias"}:
            raise _refuse(f"{name} is parametrized")
    named: dict[str, Tensor | None] = {
        "linear1.weight": first._parameters["weight"],
        "linear2.weight": second._parameters["weight"],
        "linear1.bias": first._parameters["bias"],
        "linear2.bias": second._parameters["bias"],
    }
    for name, parameter in named.items():
        if parameter is not None and type(parameter) is not nn.Parameter:
            raise _refuse(f"{name} is a {type(parameter).__name__}, not a plain nn.Parameter")
    network = Network(*named.values())  # type: ignore[arg-type]
    _check_parameters(named, network)
    return network


def _check_parameters(named: dict[str, Tensor | None], network: Network) -> None:
    for name, parameter in named.items():
        if parameter is None:
            continue
        if parameter.device.type != "cpu":
            raise _refuse(f"{name} is on {parameter.device}, and it trains on the CPU")
        if parameter.dtype not in DTYPES:
            raise _refuse(f"{name} is {parameter.dtype}, which no kernel of ours has")
        if parameter.dtype != network.dtype:
            raise TypeError(
                f"fit: {name} must have linear1.weight's dtype {network.dtype},"
                f" got {parameter.dtype}"
            )
    dispatch.choose("cpu", network.dtype, "cpu")  # says what is missing, if the kernels are
    if network.w2.shape[1] != network.w1.shape[0]:
        raise ValueError(
            f"fit: linear2 must have in_features = linear1's out_features = {network.w1.shape[0]},"
            f" got {network.w2.shape[1]}"
        )
    trained = [p.data_ptr() for p in network if p is not None and p.numel() > 0]
    if len(set(trained)) != len(trained):
        raise _refuse("two of the parameters share their memory")
