"""Training steps with torch's optimizers follow those of the plain network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from twolayer_kernels import FusedTwoLayer, TwoLayerNet

from .problems import BACKENDS

pytestmark = pytest.mark.usefixtures("poisoned_memory")

SIZES = (40, 33, 10)

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
}


def losses_of(module, optimizer, x, target, steps):
    optimizer = OPTIMIZERS[optimizer](module.parameters())
    losses = []
    for _ in range(steps):
        loss = nn.functional.mse_loss(module(x), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("backend", [None, *BACKENDS], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("recompute", [False, True], ids=["saved", "recompute"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_follows_torch(backend, bias, recompute, optimizer):
    """The distance to float64's losses: at most 4 times that of plain torch, plus 10 eps."""
    torch.manual_seed(11)
    fused = FusedTwoLayer(*SIZES, bias, backend=backend, recompute=recompute)
    plain = TwoLayerNet(*SIZES, bias)
    plain.load_state_dict(fused.state_dict())
    wide = copy.deepcopy(plain).double()
    x, target = torch.randn(32, SIZES[0]), torch.randn(32, SIZES[-1])
    ours = losses_of(fused, optimizer, x, target, 20)
    torchs = losses_of(plain, optimizer, x, target, 20)
    exact = losses_of(wide, optimizer, x.double(), target.double(), 20)
    assert exact[-1] < 0.98 * exact[0]
    budget = 4 * ((torchs - exact) / exact).abs().max() + 10 * torch.finfo(torch.float32).eps
    assert ((ours - exact) / exact).abs().max() <= budget
