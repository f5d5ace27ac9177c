"""Apply a request's bans, biases and penalties to a row's logits before its token is chosen."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from fllm.batching import Row, stop_tokens


def changes_logits(row: Row, eos: Collection[int]) -> bool:
    """Return whether the request changes the row's logits."""
    sampling = row.sampling
    return bool(
        sampling.logit_bias
        or sampling.repetition_penalty != 1
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or _banned(row, eos)
    )


def process_logits(row: Row, logits: Tensor, eos: Collection[int]) -> Tensor:
    """Return the [vocabulary] logits after ``min_tokens``, ``logit_bias`` and the three penalties."""
    if not changes_logits(row, eos):
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
    """Apply the penalties in place.

    Repetition counts prompt and output; presence and frequency only the output.
    """
    sampling, length = row.sampling, row.start + row.count
    if sampling.repetition_penalty != 1:
        ids = torch.tensor(row.token_ids[:length], device=logits.device)
        scores = logits[ids]
        penalty = sampling.repetition_penalty
        logits[ids] = torch.where(scores > 0, scores / penalty, scores * penalty)
    if (sampling.presence_penalty or sampling.frequency_penalty) and _generated(row):
        output_ids = torch.tensor(row.token_ids[row.prompt_length : length], device=logits.device)
        counts = torch.bincount(output_ids, minlength=len(logits))
        logits -= sampling.presence_penalty * (counts > 0) + sampling.frequency_penalty * counts


def _generated(row: Row) -> int:
    return row.start + row.count - row.prompt_length
