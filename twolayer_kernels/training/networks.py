"""Which modules ``fit`` trains, and the parameters in the order of the engine."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import dispatch, engine, transparency
from ..chains import FusedActivation, FusedFirst, FusedSecond
from ..modules import FusedTwoLayer, TwoLayerNet
from .memory import extent, share_memory

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

PARAMETERS = ("linear1.weight", "linear2.weight", "linear1.bias", "linear2.bias")

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

    @property
    def kind(self) -> str:
        """Its widths and dtype."""
        hidden = self.w1.shape[0]
        return f"{self.in_features} x {hidden} x {self.out_features} in {self.dtype}"


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


def _check_unseen(model: nn.Module, layers: dict[str, nn.Module], others: list[nn.Module]) -> None:
    """Nothing but the layers' weights and biases may have a say in a step."""
    reason = transparency.why_called(layers, (nn.Linear, FusedFirst, FusedSecond))
    if reason is not None:
        raise _refuse(reason)
    for module in (model, *others):
        if transparency.is_observed(module) or "forward" in vars(module):
            raise _refuse(f"{type(module).__name__} has hooks or a forward of its own")
    for name, layer in layers.items():
        if set(layer._parameters) != {"weight", "bias"}:
            raise _refuse(f"{name} is parametrized")


def network_of(model: nn.Module) -> Network:
    """The parameters of ``model``, if nothing but its own layers has a say in its steps.

    Raises:
        TypeError: ``model`` is no two-layer network.
        NotImplementedError: hooks, replaced layers, a device or dtype that the engine lacks.
    """
    if torch.is_inference_mode_enabled():
        raise _refuse("there are no gradients in torch.inference_mode()")
    if not isinstance(model, nn.Module):
        raise TypeError(f"fit: model must be a torch.nn.Module, got {type(model).__name__}")
    first, second, activation = _layers(model)
    _check_unseen(
        model, {"linear1": first, "linear2": second}, [] if activation is None else [activation]
    )
    layers = (first, second)
    found = [layer._parameters[kind] for kind in ("weight", "bias") for layer in layers]
    named: dict[str, Tensor | None] = dict(zip(PARAMETERS, found, strict=True))
    for name, parameter in named.items():
        if parameter is not None and type(parameter) is not nn.Parameter:
            raise _refuse(f"{name} is a {type(parameter).__name__}, not a plain nn.Parameter")
    network = Network(*named.values())  # type: ignore[arg-type]
    _check_parameters(named, network)
    way, reason = transparency.way_of_call(*network)
    if way is not transparency.Way.DIRECT and not torch.autograd.profiler._is_profiler_enabled:
        raise _refuse(reason)
    return network


def _check_parameters(named: dict[str, Tensor | None], network: Network) -> None:
    for name, parameter in named.items():
        if parameter is None:
            continue
        if parameter.device.type != "cpu":
            raise _refuse(f"{name} is on {parameter.device}, and it trains on the CPU")
        if parameter.is_inference():
            raise _refuse(f"{name} was made in inference mode and has no gradients")
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise _refuse(f"{name} has hooks on its gradient")
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
    present = [(name, p) for name, p in named.items() if p is not None and p.numel() > 0]
    extents = [extent(p) for _, p in present]
    for i, (name, p) in enumerate(present):
        if not p.is_contiguous() and engine.overlaps_itself(p.shape, p.stride()):
            raise _refuse(f"{name} holds an element twice")
        begin, end = extents[i]
        for (other, q), (first, last) in zip(present[:i], extents, strict=False):
            if begin < last and first < end and share_memory(p, q):
                raise _refuse(f"{other} and {name} share memory")
