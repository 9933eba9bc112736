"""Forces what the backend would choose itself: the path through the kernels, device and tiles."""

from __future__ import annotations

from twolayer_kernels.backends import triton as backend
from twolayer_kernels.backends.triton import launch, layers, tiles, two_layers
from twolayer_kernels.backends.triton.launch import Device
from twolayer_kernels.backends.triton.tiles import NarrowTile, Tile

from ..shapes import Shape

HOPPER = Device("interpreter", 90, 3)
NARROW_KERNELS = ("narrow_forward", "narrow_backward")
# Large, so that the interpreter has few steps to take; the numbers are the same in every dtype.
_SWEEPING = {
    kernel: tiles.narrow_tiles_for(kernel, "16bit", HOPPER)[-1] for kernel in NARROW_KERNELS
}
# So that a small product has several tiles.
SMALL = {
    kernel: min(tiles.tiles_for(kernel, "16bit", HOPPER), key=lambda t: t.block_m * t.block_n)
    for kernel in tiles.KERNELS
}


def fits_narrow(shape: Shape) -> bool:
    """Whether the narrow kernels can run a shape at all."""
    return min(shape) > 0 and shape.out_features <= _SWEEPING["narrow_forward"].most_out


class Force:
    """What a test wants in the place of the backend's own choices."""

    def __init__(self, monkeypatch) -> None:
        self._monkeypatch = monkeypatch

    def path(self, name: str) -> str:
        """``"narrow"``, for shapes that fit it, in large tiles and two parts; or ``"general"``."""

        def is_narrow(precision, batch, in_features, hidden_features, out_features):
            return name == "narrow" and fits_narrow(
                Shape(batch, in_features, hidden_features, out_features)
            )

        self._monkeypatch.setattr(backend, "is_narrow", is_narrow)
        if name == "narrow":
            for kernel, tile in _SWEEPING.items():
                self.narrow_tile(kernel, tile, parts=2)
        return name

    def device(self, arch: int, multiprocessors: int) -> None:
        self._monkeypatch.setattr(
            launch, "device_at", lambda _: Device("interpreter", arch, multiprocessors)
        )

    def tile(self, kernel: str, tile: Tile, parts: int = 1) -> list[tuple[int, int, int]]:
        """A tile, and a cut of K, for one kind of product; the list fills with its M, N, K."""
        choose, used = layers.choose_tile, []

        def chosen(kind, precision, device, m, n, k, *rest):
            if kind != kernel:
                return choose(kind, precision, device, m, n, k, *rest)
            used.append((m, n, k))
            return tile, parts

        self._monkeypatch.setattr(layers, "choose_tile", chosen)
        return used

    def narrow_tile(self, kernel: str, tile: NarrowTile, parts: int = 1) -> list[Shape]:
        """A tile of a narrow kernel, and how many share a sum; the list fills with the shapes."""
        choose, used = two_layers.choose_narrow, []

        def chosen(kind, precision, device, batch, in_features, hidden, out_features):
            if kind != kernel:
                return choose(kind, precision, device, batch, in_features, hidden, out_features)
            used.append(Shape(batch, in_features, hidden, out_features))
            return tile, parts

        self._monkeypatch.setattr(two_layers, "choose_narrow", chosen)
        return used
