"""The contract of model runners: a runner that hashes keeps it, and each way to break it is noticed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from fllm.batching import Row, Sampled
from fllm.testing import ModelRunnerContract, run_contract
from fllm.values import TokenLogprob

from .hash_runner import HashRunner


class HashContract(ModelRunnerContract):
    prompts = ((3, 1, 4, 1, 5), (9, 2, 6), (5, 3, 5, 8))

    @classmethod
    def runner(cls) -> HashRunner:
        return HashRunner()


class TestHashRunner(HashContract):
    pass


class Few(HashRunner):
    def allocate(self, block_size: int) -> int:
        super().allocate(block_size)
        return 3


class ForgetsChunks(HashRunner):
    """Sees the tokens of this batch only."""

    def context(self, row: Row) -> list[int]:
        return super().context(row)[row.start :] if row.count > 1 else super().context(row)


class SamplesAlways(HashRunner):
    def _result(self, row: Row) -> Sampled:
        return super()._result(replace(row, sample=True))


class Gossiping(HashRunner):
    """A result depends on how many rows there are."""

    def logits(self, context: Sequence[int]) -> list[float]:
        return super().logits([len(self.batches[-1]), *context])


class Ordered(HashRunner):
    """Takes the blocks for those after the first."""

    def read(self, block_table: Sequence[int], count: int) -> list[int]:
        table = [block_table[0] + i for i in range(len(block_table))]
        return super().read([each % self.blocks for each in table], count)


class OneAfterTheOther(HashRunner):
    """Writes and reads row by row, the last first."""

    def execute(self, batch: Sequence[Row]) -> list[Sampled]:
        return [super(OneAfterTheOther, self).execute([row])[0] for row in reversed(batch)][::-1]


class Late(HashRunner):
    """Reads before others have written."""

    def execute(self, batch: Sequence[Row]) -> list[Sampled]:
        results = [super(Late, self).execute([row])[0] for row in sorted(batch, key=lambda row: -row.start)]
        order = sorted(range(len(batch)), key=lambda at: -batch[at].start)
        return [results[order.index(at)] for at in range(len(batch))]


class DrawsWhenGreedy(HashRunner):
    def choose(self, row: Row, context: Sequence[int]) -> int:
        return super().choose(replace(row, sampling=replace(row.sampling, temperature=1.0)), context)


class WithoutTopK(HashRunner):
    def choose(self, row: Row, context: Sequence[int]) -> int:
        return super().choose(replace(row, sampling=replace(row.sampling, top_k=-1)), context)


class Seedless(HashRunner):
    def number(self, row: Row, position: int) -> float:
        return 0.3 + position % 3 / 5


class Sequential(HashRunner):
    """One generator for all, as if nobody had asked for a seed."""

    draws = 0

    def number(self, row: Row, position: int) -> float:
        self.draws += 1
        return self.draws * 0.618 % 1


class Unbiased(HashRunner):
    def adjusted(self, row: Row, context: Sequence[int]) -> list[float]:
        return super().adjusted(replace(row, sampling=replace(row.sampling, logit_bias={})), context)


class Impatient(HashRunner):
    def adjusted(self, row: Row, context: Sequence[int]) -> list[float]:
        return super().adjusted(replace(row, sampling=replace(row.sampling, min_tokens=0)), context)


class Repeating(HashRunner):
    def adjusted(self, row: Row, context: Sequence[int]) -> list[float]:
        return super().adjusted(replace(row, sampling=replace(row.sampling, presence_penalty=0)), context)


class OfAnother(HashRunner):
    """Log-probabilities of the wrong token."""

    def logprob(self, row: Row, context: Sequence[int], token: int, count: int) -> TokenLogprob:
        return super().logprob(row, context, (token + 1) % 24, count)


class Adjusted(HashRunner):
    """Log-probabilities after the temperature."""

    def logprob(self, row: Row, context: Sequence[int], token: int, count: int) -> TokenLogprob:
        found = super().logprob(row, context, token, count)
        return replace(found, logprob=found.logprob * (row.sampling.temperature or 1.0))


class Unnormalized(HashRunner):
    def logprob(self, row: Row, context: Sequence[int], token: int, count: int) -> TokenLogprob:
        logits = self.logits(context)
        top = sorted(((each, value) for each, value in enumerate(logits)), key=lambda each: -each[1])[:count]
        return TokenLogprob(token, logits[token], tuple(top))


class Shifted(HashRunner):
    """Log-probabilities of the prompt are those of the place before."""

    def _of_prompt(self, row: Row, context: Sequence[int]) -> list[TokenLogprob]:
        return [replace(each, logprob=-math.pi) for each in super()._of_prompt(row, context)]


class OncePerPrompt(HashRunner):
    """Forgets the log-probabilities of all chunks but the last."""

    def _of_prompt(self, row: Row, context: Sequence[int]) -> list[TokenLogprob]:
        return super()._of_prompt(row, context) if row.sample else []


class Credulous(HashRunner):
    """Takes every guess."""

    def _result(self, row: Row) -> Sampled:
        result = super()._result(replace(row, drafts=0))
        guesses = row.token_ids[row.start + row.count - row.drafts : row.start + row.count]
        described = [TokenLogprob(token, -1.0, ((token, -1.0), (0, -2.0))) for token in guesses]
        return replace(result, accepted=row.drafts, accepted_logprobs=described)


class Unmasked(HashRunner):
    def masked(self, row: Row, logits: list[float]) -> list[float]:
        return logits


class MaskedForAll(HashRunner):
    """The mask of one row falls on all."""

    def masked(self, row: Row, logits: list[float]) -> list[float]:
        rows = [each for each in self.batches[-1] if each.mask is not None]
        return super().masked(rows[0], logits) if rows else logits


class MaskedLogprobs(HashRunner):
    def logprob(self, row: Row, context: Sequence[int], token: int, count: int) -> TokenLogprob:
        found = super().logprob(row, context, token, count)
        return found if row.mask is None else replace(found, logprob=found.logprob / 2)


class ClosedTwice(HashRunner):
    def close(self) -> None:
        raise RuntimeError("the device is gone")


MASK = "a mask restricts the sampled tokens"
CHUNKS = "chunked prefill matches full prefill"
OWN = "logprobs are those of the unmodified logits"
OF_PROMPT = "prompt logprobs are returned with their chunks"


@pytest.mark.parametrize(
    ("kind", "test", "message"),
    [
        (Few, "the model loads and enough blocks are allocated", "allocate() returned 3 blocks"),
        (ForgetsChunks, CHUNKS, "with the prompt in chunks of 5"),
        (
            SamplesAlways,
            "no token is sampled before the last prompt chunk",
            "a row with sample=False must return Sampled()",
        ),
        (Gossiping, "results do not depend on the batch", "in a batch of different sequences"),
        (Ordered, "blocks can be in any order", "with the block table"),
        (Ordered, "sequences can share prefix blocks", "with the prefix blocks of another sequence"),
        (
            OneAfterTheOther,
            "a row reads blocks written by an earlier row of the batch",
            "an earlier row of the same batch writes",
        ),
        (
            Late,
            "a row reads blocks written by an earlier row of the batch",
            "an earlier row of the same batch writes",
        ),
        (
            DrawsWhenGreedy,
            "greedy and single candidate sampling take the likeliest token",
            "temperature=0 must take the most likely token",
        ),
        (WithoutTopK, "greedy and single candidate sampling take the likeliest token", "'top_k': 1"),
        (Seedless, "sampling depends only on seed and position", "eight seeds gave the same tokens"),
        (Sequential, "sampling depends only on seed and position", "different tokens the second time"),
        (Unbiased, "logit bias forces and bans tokens", "1000.0} must force its token"),
        (Impatient, "min tokens delays stop tokens", "min_tokens=4 must suppress"),
        (Repeating, "penalties apply to generated tokens", "presence_penalty=1000.0 must prevent repetition"),
        (
            OfAnother,
            "logprobs include the sampled and the likeliest tokens",
            "expected the log-probability of token",
        ),
        (Adjusted, OWN, "must add up to"),
        (Unnormalized, OWN, "must add up to at most 1"),
        (Shifted, OF_PROMPT, "-3.14"),
        (OncePerPrompt, OF_PROMPT, "with the prompt in chunks of 7"),
        (Credulous, "drafts are accepted up to the first mismatch", "must give (accepted, token_id)"),
        (Unmasked, MASK, "with a mask of"),
        (MaskedForAll, MASK, "in a batch with a masked row"),
        (MaskedLogprobs, MASK, "a mask must not change log-probabilities"),
        (ClosedTwice, "the runner can be closed", "the device is gone"),
    ],
)
def test_a_broken_promise_is_noticed(kind: type[HashRunner], test: str, message: str) -> None:
    case = type("Case", (HashContract,), {"runner": classmethod(lambda cls: kind())})
    found = {result.test: str(result.error) for result in run_contract(case) if result.error}
    assert message in found[test]
