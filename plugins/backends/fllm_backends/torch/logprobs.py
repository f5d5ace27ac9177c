"""Log-probabilities under the model's own distribution: before temperature, penalties and bans."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fllm.values import TokenLogprob


def describe(logits: Tensor, tokens: Sequence[int], tops: Sequence[int]) -> list[TokenLogprob]:
    """For each row of [rows, vocabulary] logits: its token, and so many of the likeliest, best first."""
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(1, logprobs.new_tensor(tokens).long()[:, None])[:, 0].tolist()
    best = logprobs.topk(min(max(tops), logprobs.shape[1]))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        TokenLogprob(token, logprob, tuple(zip(ids[:top], values[:top], strict=True)))
        for token, logprob, top, (ids, values) in zip(tokens, chosen, tops, rows, strict=True)
    ]
