"""``fit`` and the usual loop take turns on one optimizer of torch, over a checkpoint."""

import io

import torch
from torch.nn.functional import mse_loss

from twolayer_kernels import FusedTwoLayer, fit

torch.manual_seed(0)
x, y = torch.randn(256, 16), torch.randn(256, 4)
model = FusedTwoLayer(16, 64, 4)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

losses = fit(model, x, y, steps=500, optimizer=optimizer, loss="mse_mean")
print(f"after 500 steps of fit: {losses[-1]:.4f}")

file = io.BytesIO()
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
file.seek(0)
saved = torch.load(file, weights_only=True)

model = FusedTwoLayer(16, 64, 4)
model.load_state_dict(saved["model"])
optimizer = torch.optim.Adam(model.parameters())
optimizer.load_state_dict(saved["optimizer"])
for _ in range(100):
    loss = mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"after 100 more of the usual loop: {loss:.4f}")
losses = fit(model, x, y, steps=500, optimizer=optimizer, loss="mse_mean")
print(f"after 500 more of fit: {losses[-1]:.4f}")
