"""The vectors of a response as numbers."""

from __future__ import annotations

import asyncio
import math
import sys
from array import array
from collections.abc import Sequence
from operator import mul

from fllm import BackendError, PoolingInput, PoolingOutput
from fllm_pooling.protocol import PoolingUsage


def rows(output: PoolingOutput) -> list[Sequence[float]]:
    """Return the vectors. Raise `BackendError` if a number is not finite."""
    numbers = array("f")
    numbers.frombytes(output.values)
    if sys.byteorder == "big":
        numbers.byteswap()
    if not math.isfinite(sum(numbers)):
        raise BackendError("the model computed a number that is not finite; --dtype float32 may help")
    return [numbers[at : at + output.size] for at in range(0, len(numbers), output.size)]


async def dot_products(first: Sequence[float], others: Sequence[Sequence[float]]) -> list[float]:
    """Return the dot product of a vector with each other one. Other requests run in between."""
    products = []
    for other in others:
        products.append(sum(map(mul, first, other)))
        await asyncio.sleep(0)
    return products


def usage(inputs: Sequence[PoolingInput]) -> PoolingUsage:
    """Return the number of tokens of all inputs."""
    tokens = sum(len(each.token_ids) for each in inputs)
    return PoolingUsage(tokens, tokens)
