"""Log-probabilities under the model's own distribution: before temperature, penalties and bans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace
from torch import Tensor

from fllm.values import TokenLogprob


def top_logprobs(
    logits: Tensor, tokens: Sequence[int], tops: Sequence[int], given: Mapping[int, Sequence[int]] = {}
) -> list[TokenLogprob]:
    """Return the log-probability and rank of each row's token, and its most likely tokens, best first.

    ``logits`` is [rows, vocabulary], ``tokens`` the chosen token of each row, ``tops`` the number of most
    likely tokens to return for each row. For the rows of ``given``, its tokens are returned instead.
    """
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(1, logprobs.new_tensor(tokens).long()[:, None])[:, 0]
    ranks = (logprobs > chosen[:, None]).sum(-1) + 1
    best = logprobs.topk(min(max(tops), logprobs.shape[1]))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    found = [
        TokenLogprob(token, logprob, tuple(zip(ids[:top], values[:top], strict=True)), rank)
        for token, logprob, rank, top, (ids, values) in zip(
            tokens, chosen.tolist(), ranks.tolist(), tops, rows, strict=True
        )
    ]
    for row, ids in given.items():
        found[row] = replace(found[row], top=tuple(zip(ids, logprobs[row, list(ids)].tolist(), strict=True)))
    return found
