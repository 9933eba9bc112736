"""Sharded data parallelism: FSDP2 keeps a part of each parameter in each process.

torchrun --nproc-per-node 2 examples/distributed_fsdp.py
"""

import copy
import shutil
import tempfile

import torch
from torch.distributed import checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from twolayer_kernels import FusedTwoLayer


def train(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    return model


def full(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.full_tensor().detach() for name, p in model.named_parameters()}


def main() -> None:
    torch.distributed.init_process_group("gloo")
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    mesh = init_device_mesh("cpu", (count,))
    torch.manual_seed(0)
    x, y = torch.randn(64, 20), torch.randn(64, 5)
    alone = FusedTwoLayer(20, 32, 5)
    model = copy.deepcopy(alone)
    fully_shard(model, mesh=mesh)  # the whole module: its layers are never called one by one

    train(model, x.chunk(count)[rank], y.chunk(count)[rank])

    train(alone, x, y)  # the whole batch in one process
    trained = full(model)
    for name, q in alone.named_parameters():
        torch.testing.assert_close(trained[name], q.detach(), msg=lambda m, n=name: f"{n}: {m}")

    # A distributed checkpoint: each process writes and reads its part.
    folder = [tempfile.mkdtemp() if rank == 0 else None]
    torch.distributed.broadcast_object_list(folder)
    checkpoint.save(model.state_dict(), checkpoint_id=folder[0])
    again = FusedTwoLayer(20, 32, 5)
    fully_shard(again, mesh=mesh)
    state = again.state_dict()
    checkpoint.load(state, checkpoint_id=folder[0])
    again.load_state_dict(state)
    for name, p in full(again).items():
        assert torch.equal(p, trained[name]), name
    torch.distributed.barrier()
    if rank == 0:
        shutil.rmtree(str(folder[0]))
        print(f"{count} processes: parameters as in one, checkpoint read back")
    torch.distributed.barrier()  # nobody leaves while another still exchanges
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
