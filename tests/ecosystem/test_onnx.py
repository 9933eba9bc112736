"""Both exporters of ``torch.onnx`` write the fused network, and it computes the same elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from twolayer_kernels import FusedLinearReLU, FusedTwoLayer, fuse

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporters
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


def sequence():
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4))
    fuse(model)
    return model


MODELS = {
    "FusedTwoLayer": lambda: FusedTwoLayer(6, 9, 4),
    "no_bias": lambda: FusedTwoLayer(6, 9, 4, bias=False),
    "FusedLinearReLU": lambda: FusedLinearReLU(6, 4),
    "fuse": sequence,
}


@pytest.mark.parametrize("dynamo", [True, False], ids=["torch.export", "torchscript"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_an_exported_network(make, dynamo, tmp_path):
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(7, 6)
    path = tmp_path / "net.onnx"
    torch.onnx.export(model, (x,), path, dynamo=dynamo, verbose=False)
    written = onnx.load(path)
    onnx.checker.check_model(written)
    assert {node.domain for node in written.graph.node} <= {"", "ai.onnx"}
    (y,) = onnx.reference.ReferenceEvaluator(written).run(
        None, {written.graph.input[0].name: x.numpy()}
    )
    np.testing.assert_allclose(y, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
