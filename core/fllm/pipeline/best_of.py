"""``best_of``: generate several candidates and keep the most likely ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from fllm.pipeline.output_processor import SequenceOutput


async def best_of(
    candidates: AsyncGenerator[list[SequenceOutput]], n: int, first: int, *, keep_logprobs: bool
) -> AsyncGenerator[list[SequenceOutput]]:
    """Wait for all candidates, then yield the ``n`` with the highest mean log-probability.

    Their indices count up from ``first``, best first.
    """
    by_index: defaultdict[int, list[SequenceOutput]] = defaultdict(list)
    async with aclosing(candidates):
        async for outputs in candidates:
            for output in outputs:
                by_index[output.index].append(output)
    ranked = sorted(by_index.values(), key=_mean_logprob, reverse=True)
    for rank, outputs in enumerate(ranked[:n]):
        yield [_renumber(output, first + rank, keep_logprobs=keep_logprobs) for output in outputs]


def _renumber(output: SequenceOutput, index: int, *, keep_logprobs: bool) -> SequenceOutput:
    tokens = output.tokens
    if not keep_logprobs:
        tokens = [msgspec.structs.replace(token, logprob=None) for token in tokens]
    return msgspec.structs.replace(output, index=index, tokens=tokens)


def _mean_logprob(outputs: list[SequenceOutput]) -> float:
    logprobs = [token.logprob.logprob for output in outputs for token in output.tokens if token.logprob]
    return sum(logprobs) / max(len(logprobs), 1)
