"""The GPU kernels checked and timed on a machine with CUDA; ``python3 -m benches.gpu``."""
