"""Stateless layers in the style of Hugging Face's ``kernels``: a forward to put into other modules.

``kernels`` swaps the forward of a module that has a class of the same shape; what it swaps in may
have no parameters, no constructor and no members but these.
Source: https://huggingface.co/docs/kernels/layers
"""

from __future__ import annotations

from torch import Tensor, nn

from .modules import call_two_layers


class TwoLayerForward(nn.Module):
    """``y = linear2(relu(linear1(x)))`` for a module with ``linear1`` and ``linear2``.

    Example:
        >>> import types, torch
        >>> from twolayer_kernels import TwoLayerNet
        >>> from twolayer_kernels.layers import TwoLayerForward
        >>> net = TwoLayerNet(3, 5, 2)
        >>> net.forward = types.MethodType(TwoLayerForward.forward, net)
        >>> net(torch.ones(7, 3)).shape
        torch.Size([7, 2])
    """

    has_backward = True
    can_torch_compile = True

    linear1: nn.Linear
    linear2: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        return call_two_layers(self.linear1, self.linear2, x)
