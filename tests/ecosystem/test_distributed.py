"""DDP, FSDP2 and tensor parallelism: the examples, which compare with a run in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from twolayer_kernels import FusedTwoLayer, TwoLayerNet, functional

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


def test_the_styles_decide_what_comes_out(mesh):
    """A tensor for a DTensor, too, unless another layout was asked for: as of the plain network."""
    x = torch.randn(5, 4)
    spread = distribute_tensor(x, mesh, [Replicate()])
    for options in ({}, {"use_local_output": False}, {"output_layouts": Shard(0)}):
        plain, fused = TwoLayerNet(4, 6, 3), FusedTwoLayer(4, 6, 3)
        fused.load_state_dict(plain.state_dict())
        for model in (plain, fused):
            plan = {"linear1": ColwiseParallel(), "linear2": RowwiseParallel(**options)}
            parallelize_module(model, mesh, plan)
        for inputs in (x, spread):
            y, expected = fused(inputs), plain(inputs)
            assert type(y) is type(expected)
            if isinstance(y, DTensor):
                y, expected = y.full_tensor(), expected.full_tensor()
            torch.testing.assert_close(y, expected)


def test_default_styles_run_fused_and_others_do_not(mesh, monkeypatch):
    seen = []
    original = functional.two_layer
    monkeypatch.setattr(
        functional, "two_layer", lambda *args, **kw: seen.append(1) or original(*args, **kw)
    )
    model, x = tensor_parallel(mesh), torch.randn(5, 4)
    expected = model(x)
    assert seen == [1]
    model.linear1.register_forward_hook(lambda m, inputs, output: 1 * output)
    torch.testing.assert_close(model(x), expected)
    assert seen == [1]


def test_without_bias(mesh):
    plan = {"linear1": ColwiseParallel(), "linear2": RowwiseParallel()}
    model = FusedTwoLayer(4, 6, 3, bias=False)
    x = torch.randn(5, 4)
    expected = model(x)
    torch.testing.assert_close(parallelize_module(model, mesh, plan)(x), expected)


def test_layers_sharded_one_by_one(mesh):
    plain, model = TwoLayerNet(4, 6, 3), FusedTwoLayer(4, 6, 3)
    model.load_state_dict(plain.state_dict())
    for part in (model.linear1, model.linear2, model):
        fully_shard(part, mesh=mesh)
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(x), plain(x))
    for net in (model, plain):
        net(x).square().sum().backward()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad.full_tensor(), q.grad)


def test_the_other_way_round(mesh):
    plain, fused = TwoLayerNet(4, 6, 3), FusedTwoLayer(4, 6, 3)
    fused.load_state_dict(plain.state_dict())
    plan = {"linear1": RowwiseParallel(), "linear2": ColwiseParallel()}
    x = torch.randn(5, 4)
    torch.testing.assert_close(
        *(parallelize_module(model, mesh, plan)(x) for model in (fused, plain))
    )


def test_weights_placed_otherwise_are_named(mesh):
    model = FusedTwoLayer(4, 6, 3)
    for layer, dim in ((model.linear1, 1), (model.linear2, 0)):
        layer.weight = nn.Parameter(distribute_tensor(layer.weight, mesh, [Shard(dim)]))
    with pytest.raises(ValueError, match=r"linear1.weight must be placed"):
        model(torch.randn(5, 4))
