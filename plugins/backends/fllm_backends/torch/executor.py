"""Execute one batch: forward pass, logits, sampled tokens and log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from fllm.batching import expand_drafts, num_samples, verify_drafts
from fllm.batching.runner import Row, Sampled
from fllm.values import TokenLogprob
from fllm_backends.torch import logit_masks, sampler
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.logprobs import top_logprobs
from fllm_backends.torch.model import Decoder, StepDecoder

Draw = Callable[[Sequence[Row], Tensor, Tensor | None], list[int]]
"""`sampler.draw`, or another function that chooses the same tokens."""

_Samples = tuple[Sequence[int], Sequence[TokenLogprob | None]]

_LOGITS_CHUNK = 256
"""Positions of a prompt whose logits are in memory at once when prompt log-probabilities are requested."""


class Executor:
    """A model, its KV cache, its EOS tokens, and what chooses tokens from processed logits."""

    def __init__(self, model: Decoder, cache: KVCache, eos: Collection[int], draw: Draw) -> None:
        self._model = model
        self._cache = cache
        self._eos = eos
        self._device = model.device
        self._draw = draw
        self._steps = model if isinstance(model, StepDecoder) else None

    @property
    def cache(self) -> KVCache:
        """The KV cache."""
        return self._cache

    @torch.inference_mode()
    def execute(self, batch: Sequence[Row]) -> list[Sampled]:
        """Run one batch; see `fllm.batching.runner.ModelRunner.execute`."""
        ids = [token for row in batch for token in row.token_ids[row.start : row.start + row.count]]
        attention = AttentionBatch(batch, self._cache.block_size, self._device)
        inputs = torch.tensor(ids), attention, self._cache
        decodes = len(ids) == len(batch) and all(_is_decode(row) for row in batch)
        if decodes and (model := self._steps) and all(row.mask is None for row in batch):
            tokens, logprobs = self._sample(
                batch, partial(model.next_tokens, *inputs), partial(model.next_logits, *inputs)
            )
        else:
            hidden = self._model.forward(*inputs)
            if not decodes:
                return self._execute_pieces(batch, torch.split(hidden, [row.count for row in batch]))
            tokens, logprobs = self._sample_states(batch, hidden)
        return [
            Sampled(token_id=token, logprob=logprob) for token, logprob in zip(tokens, logprobs, strict=True)
        ]

    def _execute_pieces(self, batch: Sequence[Row], pieces: Sequence[Tensor]) -> list[Sampled]:
        """Return the results of rows from their hidden states."""
        ends = [piece[len(piece) - num_samples(row) :] for row, piece in zip(batch, pieces, strict=True)]
        rows = [end for row in batch for end in expand_drafts(row)]
        sampled = self._sample_states(rows, torch.cat(ends)) if rows else ((), ())
        tokens, logprobs = iter(sampled[0]), iter(sampled[1])
        return [
            verify_drafts(
                row,
                list(islice(tokens, num_samples(row))),
                list(islice(logprobs, num_samples(row))),
                self._prompt_logprobs(row, piece),
            )
            for row, piece in zip(batch, pieces, strict=True)
        ]

    def _sample_states(self, rows: Sequence[Row], hidden: Tensor) -> _Samples:
        """Return what comes after rows that have these hidden states."""
        model = self._model
        return self._sample(rows, partial(model.greedy_tokens, hidden), partial(model.logits, hidden))

    def _sample(
        self,
        rows: Sequence[Row],
        compute_tokens: Callable[[Tensor | None], list[int]],
        compute_logits: Callable[[], Tensor],
    ) -> _Samples:
        """Return what comes after each of the rows, which have no drafts, and its log-probability."""
        size = self._model.vocab_size
        if all(row.sampling.logprobs is None and sampler.is_greedy(row, self._eos) for row in rows):
            return compute_tokens(logit_masks.stack(rows, size, self._device)), [None] * len(rows)
        logits = compute_logits()
        processed = sampler.process_all(rows, logits, self._eos)
        tokens = self._draw(rows, processed, logit_masks.stack(rows, size, self._device))
        return tokens, _logprobs(rows, logits, tokens)

    def _prompt_logprobs(self, row: Row, hidden: Tensor) -> list[TokenLogprob]:
        if not row.prompt_logprobs:
            return []
        first = row.start + 1
        tokens = row.token_ids[first : min(first + row.count, row.prompt_length)]
        top = row.sampling.prompt_logprobs or 0
        logprobs: list[TokenLogprob] = []
        for at in range(0, len(tokens), _LOGITS_CHUNK):
            part = tokens[at : at + _LOGITS_CHUNK]
            logits = self._model.logits(hidden[at : at + len(part)])
            logprobs += top_logprobs(logits, part, [top] * len(part))
        return logprobs


def _is_decode(row: Row) -> bool:
    """Return whether the row computes one token and samples the next, and nothing else is asked of it."""
    return row.sample and row.count == 1 and not row.prompt_logprobs


def _logprobs(rows: Sequence[Row], logits: Tensor, tokens: Sequence[int]) -> list[TokenLogprob | None]:
    tops = {at: row.sampling.logprobs for at, row in enumerate(rows) if row.sampling.logprobs is not None}
    if not tops:
        return [None] * len(rows)
    given = {i: ids for i, at in enumerate(tops) if (ids := rows[at].sampling.logprob_token_ids)}
    logprobs = top_logprobs(logits[list(tops)], [tokens[at] for at in tops], list(tops.values()), given)
    by_row = dict(zip(tops, logprobs, strict=True))
    return [by_row.get(at) for at in range(len(rows))]
