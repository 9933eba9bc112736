"""DDP, FSDP2 and tensor parallelism: the examples, which compare with a run in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from twolayer_kernels import FusedTwoLayer

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("example", ["ddp", "fsdp", "tensor_parallel"])
def test_example(example, processes):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(processes), EXAMPLES / f"distributed_{example}.py"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{processes} processes: parameters as in one" in done.stdout


@pytest.fixture
def mesh(tmp_path):
    """A group of this process alone."""
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def tensor_parallel(mesh):
    plan = {"linear1": ColwiseParallel(), "linear2": RowwiseParallel()}
    return parallelize_module(FusedTwoLayer(4, 6, 3), mesh, plan)


def test_a_dtensor_in_is_a_dtensor_out(mesh):
    model, x = tensor_parallel(mesh), torch.randn(5, 4)
    y = model(distribute_tensor(x, mesh, [Replicate()]))
    assert isinstance(y, DTensor)
    plain = model(x)
    assert not isinstance(plain, DTensor)
    torch.testing.assert_close(y.full_tensor(), plain)


def test_without_bias(mesh):
    plan = {"linear1": ColwiseParallel(), "linear2": RowwiseParallel()}
    model = FusedTwoLayer(4, 6, 3, bias=False)
    x = torch.randn(5, 4)
    expected = model(x)
    torch.testing.assert_close(parallelize_module(model, mesh, plan)(x), expected)


def test_layers_sharded_one_by_one_are_named(mesh):
    model = FusedTwoLayer(4, 6, 3)
    fully_shard(model.linear1, mesh=mesh)
    fully_shard(model.linear2, mesh=mesh)
    with pytest.raises(ValueError, match=r"linear2.weight.*fully_shard takes the whole"):
        model(torch.randn(5, 4))


def test_the_other_way_round_is_named(mesh):
    plan = {"linear1": RowwiseParallel(), "linear2": ColwiseParallel()}
    model = parallelize_module(FusedTwoLayer(4, 6, 3), mesh, plan)
    with pytest.raises(ValueError, match=r"linear1.weight must be placed"):
        model(torch.randn(5, 4))
