"""``fit``: the whole training loop of a two-layer network in one call."""

from .fitting import fit as fit
