"""A correct runner whose logits are a hash of the tokens in the KV cache of a sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from random import Random

from support.fake_runner import FakeRunner

from fllm.batching import Row, RunnerCapabilities, Sampled, stop_tokens
from fllm.values import TokenLogprob

VOCABULARY = 24


class HashRunner(FakeRunner):
    """Passes `ModelRunnerContract`. Each behaviour that a subclass breaks is a separate method."""

    capabilities = RunnerCapabilities(verifies_drafts=True, applies_masks=True)

    def __init__(self) -> None:
        super().__init__(blocks=64)
        self.card = type(self.card)(tokenizer="", max_model_len=1000, runtime={"vocab_size": VOCABULARY})

    def logits(self, context: Sequence[int]) -> list[float]:
        digest = blake2b(repr(list(context)).encode(), digest_size=VOCABULARY).digest()
        return [byte / 50 for byte in digest]

    def adjusted_logits(self, row: Row, context: Sequence[int]) -> list[float]:
        logits, sampling = self.logits(context), row.sampling
        output_tokens = context[row.prompt_length :]
        for token in set(output_tokens):
            logits[token] -= (
                sampling.presence_penalty + output_tokens.count(token) * sampling.frequency_penalty
            )
        for token, bias in sampling.logit_bias.items():
            logits[token] += bias
        if len(output_tokens) < sampling.min_tokens:
            for token in stop_tokens(sampling, self.card.eos_token_ids):
                logits[token] = -math.inf
        return self.masked_logits(row, logits)

    def masked_logits(self, row: Row, logits: list[float]) -> list[float]:
        if row.mask is None:
            return logits
        bits = row.mask().cast("B")
        return [each if bits[i // 8] >> i % 8 & 1 else -math.inf for i, each in enumerate(logits)]

    def random_number(self, row: Row, position: int) -> float:
        return Random(f"{row.seed} {position}").random()

    def choose(self, row: Row, context: Sequence[int]) -> int:
        logits, sampling = self.adjusted_logits(row, context), row.sampling
        best = max(logits)
        order = sorted(range(VOCABULARY), key=lambda token: -logits[token])
        if sampling.temperature == 0:
            return order[0]
        weights = {token: math.exp((logits[token] - best) / sampling.temperature) for token in order}
        candidates = order[: sampling.top_k] if sampling.top_k > 0 else order
        candidates = [token for token in candidates if weights[token] >= sampling.min_p]
        quantile, cumulative = self.random_number(row, len(context)), 0.0
        total = sum(weights[token] for token in candidates)
        if sampling.top_p < weights[candidates[0]] / total:
            return candidates[0]
        for token in candidates:
            cumulative += weights[token] / total
            if quantile < cumulative:
                return token
        return candidates[-1]

    def logprob(self, row: Row, context: Sequence[int], token: int, count: int) -> TokenLogprob:
        logits = self.logits(context)
        total = math.log(sum(map(math.exp, logits)))
        best = sorted(range(VOCABULARY), key=lambda each: -logits[each])[:count]
        return TokenLogprob(
            token, logits[token] - total, tuple((each, logits[each] - total) for each in best)
        )

    def context(self, row: Row) -> list[int]:
        return self.read(row.block_table, row.start + row.count)

    def _result(self, row: Row) -> Sampled:
        context = self.context(row)
        prompt_logprobs = self._prompt_logprobs(row, context)
        if not row.sample:
            return Sampled(prompt_logprobs=prompt_logprobs)
        tokens: list[int] = []
        logprobs: list[TokenLogprob] = []
        for place in range(len(context) - row.drafts, len(context) + 1):
            tokens.append(self.choose(row, context[:place]))
            if row.sampling.logprobs is not None:
                logprobs.append(self.logprob(row, context[:place], tokens[-1], row.sampling.logprobs))
            if place < len(context) and tokens[-1] != context[place]:
                break
        return Sampled(
            token_id=tokens[-1],
            accepted=len(tokens) - 1,
            logprob=logprobs[-1] if logprobs else None,
            accepted_logprobs=logprobs[:-1],
            prompt_logprobs=prompt_logprobs,
        )

    def _prompt_logprobs(self, row: Row, context: Sequence[int]) -> list[TokenLogprob]:
        if not row.prompt_logprobs:
            return []
        prompt = row.token_ids[: row.prompt_length]
        places = range(row.start + 1, min(row.start + row.count + 1, row.prompt_length))
        count = row.sampling.prompt_logprobs or 0
        return [self.logprob(row, prompt[:place], prompt[place], count) for place in places]
