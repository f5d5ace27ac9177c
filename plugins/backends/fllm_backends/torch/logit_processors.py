"""What a request adds to a row's logits before its token is chosen: bans, biases and penalties."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from fllm.batching import Row, stop_tokens


def adjusts(row: Row, eos: Collection[int]) -> bool:
    """Whether the row's logits are changed at all."""
    sampling = row.sampling
    return bool(
        sampling.logit_bias
        or sampling.repetition_penalty != 1
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or _banned(row, eos)
    )


def adjust(row: Row, logits: Tensor, eos: Collection[int]) -> Tensor:
    """The [vocabulary] logits after ``min_tokens``, ``logit_bias`` and the three penalties."""
    if not adjusts(row, eos):
        return logits
    logits, biases = logits.clone(), row.sampling.logit_bias
    logits[list(_banned(row, eos))] = -math.inf
    if biases:
        logits[list(biases)] += logits.new_tensor(list(biases.values()))
    _penalize(row, logits)
    return logits


def _banned(row: Row, eos: Collection[int]) -> Collection[int]:
    if row.mask is not None or _generated(row) >= row.sampling.min_tokens:
        return ()
    return stop_tokens(row.sampling, eos)


def _penalize(row: Row, logits: Tensor) -> None:
    """Repetition counts prompt and answer; presence and frequency the answer alone."""
    sampling, length = row.sampling, row.start + row.count
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(row.token_ids[:length], device=logits.device)
        old = logits[seen]
        penalty = sampling.repetition_penalty
        logits[seen] = torch.where(old > 0, old / penalty, old * penalty)
    if (sampling.presence_penalty or sampling.frequency_penalty) and _generated(row):
        answer = torch.tensor(row.token_ids[row.prompt_length : length], device=logits.device)
        counts = torch.bincount(answer, minlength=len(logits))
        logits -= sampling.presence_penalty * (counts > 0) + sampling.frequency_penalty * counts


def _generated(row: Row) -> int:
    return row.start + row.count - row.prompt_length
