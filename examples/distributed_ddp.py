"""Data parallelism: each process has a part of the batch, DDP averages the gradients.

torchrun --nproc-per-node 2 examples/distributed_ddp.py
"""

import copy

import torch
from torch.nn.parallel import DistributedDataParallel

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
    torch.manual_seed(0)
    x, y = torch.randn(64, 20), torch.randn(64, 5)
    alone = FusedTwoLayer(20, 32, 5)
    model = copy.deepcopy(alone)

    train(DistributedDataParallel(model), x.chunk(count)[rank], y.chunk(count)[rank])

    train(alone, x, y)  # the whole batch in one process
    for (name, p), q in zip(model.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=lambda m, name=name: f"{name}: {m}")
    if rank == 0:
        print(f"{count} processes: parameters as in one")
    torch.distributed.barrier()  # nobody leaves while another still exchanges
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
