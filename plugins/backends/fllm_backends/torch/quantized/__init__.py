"""Dequantize the weights of published checkpoints, a few rows at a time."""
