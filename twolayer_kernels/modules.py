"""The modules: ``FusedTwoLayer``, ``FusedLinearReLU`` and the plain ``TwoLayerNet`` beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import checks, functional, transparency
from .transparency import is_scripting, plain_parameters


def _is_sharded(*layers: Any) -> bool:
    return any(
        hasattr(layer._parameters.get("weight"), "placements")  # a DTensor
        for layer in layers
        if isinstance(layer, nn.Linear)
    )


def why_called_apart(module: FusedTwoLayer) -> str | None:
    """Why a call of the module would call its layers, or ``None`` where it would not."""
    linear1, linear2 = module.linear1, module.linear2
    if _is_sharded(linear1, linear2):
        return None
    return transparency.why_called({"linear1": linear1, "linear2": linear2})


def call_two_layers(
    linear1: Any, linear2: Any, x: Tensor, *, recompute: bool = False, backend: str | None = None
) -> Tensor:
    """``linear2(relu(linear1(x)))``, fused where nothing can tell the difference.

    Args:
        linear1, linear2: ``nn.Linear``, or any modules in their place. They are called, one after
            the other, where that can be seen: see :func:`transparency.why_called`.
        x: as for :func:`functional.two_layer`.
        recompute, backend: as for :func:`functional.two_layer`.

    Raises:
        NotImplementedError: the layers must be called, and another backend than torch is named.
    """
    if _is_sharded(linear1, linear2):
        from . import sharding  # torch.distributed.tensor takes a second to load

        if sharding.does_the_work_of(linear1, linear2, x):
            return sharding.two_layer(
                x,
                linear1.weight,
                linear2.weight,
                linear1.bias,
                linear2.bias,
                recompute=recompute,
                backend=backend,
            )
    reason = transparency.why_called({"linear1": linear1, "linear2": linear2})
    if reason is not None:
        functional.check_operations(backend, reason)
        y: Tensor = linear2(torch.relu(linear1(x)))
        return y
    # In the order in which calls of the layers read them: a parametrization may draw numbers.
    w1, b1 = linear1.weight, linear1.bias
    w2, b2 = linear2.weight, linear2.bias
    return functional.two_layer(x, w1, w2, b1, b2, recompute=recompute, backend=backend)


class TwoLayerNet(nn.Module):
    """The plain torch network, ``linear2(relu(linear1(x)))``: the fused module's baseline.

    Args:
        in_features, hidden_features, out_features: widths of the three layers of units.
        bias: whether both linear layers have one.
        device, dtype: of the parameters, as for ``torch.nn.Linear``.

    Shape: ``(..., in_features) -> (..., out_features)``.

    Example:
        >>> import torch
        >>> from twolayer_kernels import FusedTwoLayer, TwoLayerNet
        >>> plain, fused = TwoLayerNet(3, 5, 2), FusedTwoLayer(3, 5, 2)
        >>> fused.load_state_dict(plain.state_dict())
        <All keys matched successfully>
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_features, hidden_features, bias, device=device, dtype=dtype)
        self.linear2 = nn.Linear(hidden_features, out_features, bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear2(torch.relu(self.linear1(x)))
        return y


class FusedTwoLayer(nn.Module):
    """``Linear -> ReLU -> Linear`` in one fused call: ``y = relu(x w1^T + b1) w2^T + b2``.

    Parameters, their names in the state dict, and their initial values under one seed are those
    of :class:`TwoLayerNet`. The two ``nn.Linear`` submodules hold the parameters. They are called,
    one after the other, where that can be seen: with hooks on them, or replaced by other modules.

    Args:
        in_features, hidden_features, out_features: widths of the three layers of units.
        bias: whether both linear layers have one.
        recompute: keep only the input for backward, see :func:`functional.two_layer`.
        backend: see :func:`functional.two_layer`.
        device, dtype: of the parameters, as for ``torch.nn.Linear``.

    Shape: ``(..., in_features) -> (..., out_features)``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.

    Example:
        >>> import torch
        >>> from twolayer_kernels import FusedTwoLayer
        >>> FusedTwoLayer(3, 5, 2)(torch.randn(7, 3)).shape
        torch.Size([7, 2])
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        bias: bool = True,
        *,
        recompute: bool = False,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        checks.check_feature_count("in_features", in_features)
        checks.check_feature_count("hidden_features", hidden_features)
        checks.check_feature_count("out_features", out_features)
        checks.check_flag("recompute", recompute)
        checks.check_backend(backend)
        self.linear1 = nn.Linear(in_features, hidden_features, bias, device=device, dtype=dtype)
        self.linear2 = nn.Linear(hidden_features, out_features, bias, device=device, dtype=dtype)
        self.recompute = recompute
        self.backend = backend

    @classmethod
    def from_linears(
        cls,
        linear1: nn.Linear,
        linear2: nn.Linear,
        *,
        recompute: bool = False,
        backend: str | None = None,
    ) -> FusedTwoLayer:
        """A fused module over the parameters of two linear layers; they are shared, not copied.

        Raises:
            TypeError: an argument is no ``nn.Linear``, or the two differ in dtype.
            ValueError: ``linear2.in_features`` is not ``linear1.out_features``, or the two are on
                different devices.
        """
        for name, linear in (("linear1", linear1), ("linear2", linear2)):
            if not isinstance(linear, nn.Linear):
                raise TypeError(
                    f"from_linears: {name} must be a torch.nn.Linear, got {type(linear).__name__}"
                )
        first, second = linear1.weight, linear2.weight
        if linear2.in_features != linear1.out_features:
            raise ValueError(
                "from_linears: linear2.in_features must be linear1.out_features ="
                f" {linear1.out_features}, got {linear2.in_features}"
            )
        if first.dtype != second.dtype:
            raise TypeError(
                "from_linears: linear2 must have linear1's dtype"
                f" {checks.dtype_name(first.dtype)}, got {checks.dtype_name(second.dtype)}"
            )
        if first.device != second.device:
            raise ValueError(
                f"from_linears: linear2 must be on linear1's device {first.device},"
                f" got {second.device}"
            )
        checks.check_flag("recompute", recompute)
        checks.check_backend(backend)
        fused = cls.__new__(cls)
        nn.Module.__init__(fused)
        fused.linear1 = linear1
        fused.linear2 = linear2
        fused.recompute = recompute
        fused.backend = backend
        return fused

    @property
    def in_features(self) -> int:
        return self.linear1.in_features

    @property
    def hidden_features(self) -> int:
        return self.linear1.out_features

    @property
    def out_features(self) -> int:
        return self.linear2.out_features

    def forward(self, x: Tensor) -> Tensor:
        if is_scripting():
            return self.linear2(torch.relu(self.linear1(x)))  # type: ignore[no-any-return]
        if not torch.compiler.is_dynamo_compiling():
            modules: Any = self._modules
            # What a call nearly always finds; None sends it to look in Python, much slower.
            parameters = plain_parameters(modules.get("linear1"), modules.get("linear2"))
            if parameters is not None:
                return functional.two_layer(
                    x, *parameters, recompute=self.recompute, backend=self.backend
                )
        return call_two_layers(
            self.linear1, self.linear2, x, recompute=self.recompute, backend=self.backend
        )

    def extra_repr(self) -> str:
        options = f"recompute={self.recompute}, " if self.recompute else ""
        return f"{options}backend={self.backend!r}"


class FusedLinearReLU(nn.Linear):
    """``Linear -> ReLU`` in one fused call: ``a = relu(x w^T + b)``.

    An ``nn.Linear`` in its parameters, state dict and initialisation.

    Args:
        in_features, out_features, bias, device, dtype: as for ``torch.nn.Linear``.
        backend: see :func:`functional.two_layer`.

    Shape: ``(..., in_features) -> (..., out_features)``.

    Example:
        >>> import torch
        >>> from twolayer_kernels import FusedLinearReLU
        >>> bool((FusedLinearReLU(3, 2)(torch.randn(7, 3)) >= 0).all())
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        checks.check_feature_count("in_features", in_features)
        checks.check_feature_count("out_features", out_features)
        checks.check_backend(backend)
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.backend = backend

    def forward(self, input: Tensor) -> Tensor:
        if is_scripting():
            return torch.relu(nn.functional.linear(input, self.weight, self.bias))
        return functional.linear_relu(input, self.weight, self.bias, backend=self.backend)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, backend={self.backend!r}"
