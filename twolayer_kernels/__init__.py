"""Fused ``Linear -> ReLU -> Linear`` for PyTorch and NumPy: the public names.

Names load on first use, so importing the package costs nothing and
``twolayer_kernels.numpy`` works where torch is not installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .explaining import explain as explain
    from .fusing import fuse as fuse
    from .fusing import unfuse as unfuse
    from .modules import FusedLinearReLU as FusedLinearReLU
    from .modules import FusedTwoLayer as FusedTwoLayer
    from .modules import TwoLayerNet as TwoLayerNet
    from .training import fit as fit

__version__ = "0.1.0"

_HOME = {
    "FusedLinearReLU": "modules",
    "FusedTwoLayer": "modules",
    "TwoLayerNet": "modules",
    "explain": "explaining",
    "fit": "training",
    "fuse": "fusing",
    "unfuse": "fusing",
}

__all__ = [
    "FusedLinearReLU",
    "FusedTwoLayer",
    "TwoLayerNet",
    "__version__",
    "explain",
    "fit",
    "fuse",
    "unfuse",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f".{_HOME[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(
            f"twolayer_kernels.{name} needs torch: pip install torch; twolayer_kernels.numpy does"
            " not",
            name="torch",
        ) from error
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
