"""A step of few small networks, for compute-sanitizer: both paths, float32 and bfloat16."""

from __future__ import annotations

import torch

from twolayer_kernels import FusedTwoLayer


def main() -> None:
    for sizes in ((33, 70, 65, 10), (65, 129, 70, 264)):
        for dtype in (torch.float32, torch.bfloat16):
            batch, in_features, hidden, out = sizes
            model = FusedTwoLayer(
                in_features, hidden, out, backend="triton", device="cuda", dtype=dtype
            )
            x = torch.randn(batch, in_features, device="cuda").to(dtype).requires_grad_()
            model(x).backward(torch.randn(batch, out, device="cuda").to(dtype))
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
