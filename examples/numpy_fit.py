"""Training on NumPy arrays in one call; torch is not imported and need not be installed."""

import numpy as np

from twolayer_kernels.numpy import fit, two_layer

random = np.random.default_rng(0)
x = random.standard_normal((1000, 8), np.float32)
y = np.sin(x.sum(1, keepdims=True))
w1 = random.standard_normal((64, 8), np.float32) / 3  # (out, in), as in torch
b1 = np.zeros(64, np.float32)
w2 = random.standard_normal((1, 64), np.float32) / 8
b2 = np.zeros(1, np.float32)

losses = fit(
    x, y, w1, w2, b1, b2, epochs=100, batch_size=50, optimizer="adam", lr=3e-3, loss="mse_mean",
    rng=random,
)  # fmt: skip
print(f"loss: {losses[0]:.3f} at first, {losses[-1]:.4f} after {len(losses)} steps")
print(f"predicted {two_layer(x[:1], w1, w2, b1, b2)[0, 0]:.3f}, wanted {y[0, 0]:.3f}")
