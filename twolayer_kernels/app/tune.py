"""``twolayer tune``: measures the GPU at hand and writes the table that its kernels then use.

Runs with torch and triton alone, as ``python -m twolayer_kernels.app.tune``, too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from .. import FusedTwoLayer, TwoLayerNet, __version__
from .failures import BadInput


def _modules(
    in_features: int, hidden_features: int, out_features: int, **kind: Any
) -> tuple[FusedTwoLayer, TwoLayerNet]:
    plain = TwoLayerNet(in_features, hidden_features, out_features, **kind)
    fused = FusedTwoLayer.from_linears(plain.linear1, plain.linear2, backend="triton")
    return fused, plain


def tune() -> None:
    """Measures, says what it measures, and writes the table.

    Whoever stops it keeps what was measured until then, and of the rest what an earlier run found.

    Raises:
        BadInput: there is no CUDA device, or no triton.
        RuntimeError: the device failed.
    """
    if not torch.cuda.is_available():
        raise BadInput("tune: needs a CUDA device, and torch finds none")
    try:
        tuning: Any = importlib.import_module("twolayer_kernels.backends.triton.tuning")
        tiles: Any = importlib.import_module("twolayer_kernels.backends.triton.tiles")
        triton: Any = importlib.import_module("triton")
    except ModuleNotFoundError as error:
        raise BadInput(f"tune: {error}: pip install 'twolayer_kernels[triton]'") from error
    device = torch.device("cuda", torch.cuda.current_device())
    name = torch.cuda.get_device_name(device)
    report = partial(print, flush=True)  # into a pipe or a file, too
    report(f"measuring {name}")
    path = tiles.tuned_table_path(name)
    table = tuning.read(path) | {
        "device": name,
        "versions": {
            "twolayer_kernels": __version__,
            "torch": torch.__version__,
            "triton": triton.__version__,
        },
    }

    def into(part: str) -> Callable[[list[dict[str, Any]]], None]:
        before = table[part]
        return lambda entries: tuning.write(
            table | {part: tuning.updated(part, before, entries)}, path
        )

    measure = tuning.measure_on_gpu
    table["tiles"] = tuning.tune_tiles(device, measure, report, into("tiles"))
    tuning.write(table, path)  # the comparison is to run on the tiles just found
    table["products"] = tuning.compare_products(
        device, measure, tuning.LARGE_NETWORKS, report, into("products")
    )
    tuning.write(table, path)  # and so on
    table["against_torch"] = tuning.compare_with_torch(
        device, measure, tuning.NETWORKS, _modules, report, into("against_torch")
    )
    tuning.write(table, path)
    report(f"written: {path}")


if __name__ == "__main__":
    tune()
