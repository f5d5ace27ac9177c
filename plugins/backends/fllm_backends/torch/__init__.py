"""Serve Llama-family decoders with torch on CPUs and CUDA devices, under `fllm.batching`."""
