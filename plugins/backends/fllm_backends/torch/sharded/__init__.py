"""Tensor parallelism: a model whose weights are divided among several processes."""
