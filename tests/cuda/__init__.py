"""The Triton kernels on a GPU; without one there is a skip for each module, and its reason."""
