"""Tensor parallelism: each process has a part of the hidden features.

torchrun --nproc-per-node 2 examples/distributed_tensor_parallel.py
"""

import copy

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from twolayer_kernels import FusedTwoLayer


def train(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    return model


def main() -> None:
    torch.distributed.init_process_group("gloo")
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    mesh = init_device_mesh("cpu", (count,))
    torch.manual_seed(0)
    x, y = torch.randn(64, 20), torch.randn(64, 5)
    alone = FusedTwoLayer(20, 32, 5)
    model = copy.deepcopy(alone)
    plan = {"linear1": ColwiseParallel(), "linear2": RowwiseParallel()}
    parallelize_module(model, mesh, plan)

    inputs = x.clone().requires_grad_()
    train(model, inputs, y)

    whole = x.clone().requires_grad_()
    train(alone, whole, y)  # all hidden features in one process
    for (name, p), q in zip(model.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p.full_tensor(), q, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(inputs.grad, whole.grad)
    if rank == 0:
        print(f"{count} processes: parameters as in one")
    torch.distributed.barrier()  # nobody leaves while another still exchanges
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
