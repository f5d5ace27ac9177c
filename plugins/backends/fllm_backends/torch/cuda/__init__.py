"""A decoder for cuda devices: Triton kernels over the paged cache, decode steps as recorded graphs."""
