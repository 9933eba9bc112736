"""Networks for ``fuse``: the smallest of each kind, and what is compared of them."""

from __future__ import annotations

import torch
from torch import nn


def sequential(*between):
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *between, nn.Linear(8, 3))


class Triple(nn.Module):
    """As the feed-forwards of transformers: three attributes, some code around them."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.fc1 = nn.Linear(4, 8)
        self.activation_fn = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(8, 4)

    def forward(self, x):
        h = self.dropout(self.activation_fn(self.fc1(x.reshape(-1, 4))))
        return x + self.fc2(h).reshape(x.shape)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x):
        if x.sum() > 0:
            return self.fc2(self.act(self.fc1(x)))
        return self.fc2(self.fc1(x))


class OwnForward(nn.Sequential):
    def forward(self, x):
        return self[2](self[0](x))


def results(model, x):
    """The output and every gradient."""
    x = x.clone().requires_grad_()
    y = model(x)
    weights = torch.arange(1.0, y.numel() + 1).reshape(y.shape)
    names, leaves = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad((y * weights).sum(), [x, *leaves])
    return {"y": y.detach()} | dict(zip(("x", *names), gradients, strict=True))
