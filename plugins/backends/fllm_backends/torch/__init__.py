"""Llama-family decoders on torch, for cpu and cuda, under `fllm.batching`."""
