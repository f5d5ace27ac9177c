"""A decoder for CUDA devices: Triton kernels over the paged cache, decode steps as CUDA graphs."""
