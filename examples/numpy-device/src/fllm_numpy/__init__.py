"""A device in NumPy: a complete model runner for `fllm.batching`, with real weights."""
