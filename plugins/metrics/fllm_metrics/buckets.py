"""Bucket bounds of the histograms, without ``+Inf``."""

from __future__ import annotations

from itertools import count, takewhile

FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
OUTPUT_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
BETWEEN_TOKENS = (0.001, 0.0025, 0.005, *OUTPUT_TOKEN)
"""With more bounds at the low end, because small models need less than 10 ms per token."""
END_TO_END = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)

VLLM_FIRST_TOKEN = (*FIRST_TOKEN, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)
VLLM_OUTPUT_TOKEN = (*OUTPUT_TOKEN, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
VLLM_REQUEST = (*END_TO_END, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0)
VLLM_CHOICES = (1, 2, 5, 10, 20)


def tokens(max_model_len: int) -> tuple[int, ...]:
    """Return 1, 2 and 5 times the powers of ten, up to the maximum context length."""
    steps = (digit * 10**power for power in count() for digit in (1, 2, 5))
    return tuple(takewhile(lambda step: step <= max_model_len, steps))
