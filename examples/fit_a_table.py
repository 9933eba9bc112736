"""A small network fitted to a table, beside the usual loop from the same weights."""

import time

import torch
from sklearn.datasets import load_diabetes
from torch.nn.functional import mse_loss

from twolayer_kernels import FusedTwoLayer, TwoLayerNet, fit

x, y = (torch.from_numpy(a).float() for a in load_diabetes(return_X_y=True, scaled=False))
x = (x - x.mean(0)) / x.std(0)
y = ((y - y.mean()) / y.std())[:, None]

model, plain = FusedTwoLayer(10, 32, 1), TwoLayerNet(10, 32, 1)
plain.load_state_dict(model.state_dict())

start = time.perf_counter()
losses = fit(
    model, x, y, epochs=30, batch_size=32, optimizer="adam", lr=1e-3, loss="mse_mean",
    generator=torch.Generator().manual_seed(0),
)  # fmt: skip
ours = time.perf_counter() - start

generator = torch.Generator().manual_seed(0)
optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
start = time.perf_counter()
for _ in range(30):
    for places in torch.randperm(len(x), generator=generator).split(32):
        loss = mse_loss(plain(x[places]), y[places])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
theirs = time.perf_counter() - start

print(f"last loss: fit {losses[-1]:.5f}, the usual loop {loss:.5f}")
print(f"time: fit {1e3 * ours:.1f} ms, the usual loop {1e3 * theirs:.1f} ms")
