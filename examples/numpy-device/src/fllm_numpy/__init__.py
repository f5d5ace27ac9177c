"""A device of one's own, in NumPy: what `fllm.batching` needs of one, on real weights."""
