"""Training by hand on NumPy arrays; torch is not imported and need not be installed."""

import numpy as np

from twolayer_kernels.numpy import two_layer_backward, two_layer_forward

random = np.random.default_rng(0)
x = random.standard_normal((64, 1000), np.float32)
y = random.standard_normal((64, 10), np.float32)
w1 = random.standard_normal((100, 1000), np.float32)  # (out, in), as in torch
w2 = random.standard_normal((10, 100), np.float32)

needs = (False, True, True, False, False)  # of x, w1, w2, b1, b2: the weights alone
for step in range(500):
    y_pred, a = two_layer_forward(x, w1, w2)
    error = y_pred - y
    _, grad_w1, grad_w2, _, _ = two_layer_backward(2 * error, x, w1, w2, None, a, needs)
    w1 -= 1e-6 * grad_w1
    w2 -= 1e-6 * grad_w2
    if step % 100 == 0 or step == 499:
        print(f"step {step}: loss {np.square(error).sum():.3g}")
