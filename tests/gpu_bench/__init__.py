"""The GPU bench, ``benches/gpu``, without a GPU."""
