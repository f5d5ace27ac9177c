"""The contract of model runners: `HashRunner` passes, and each violation is detected."""

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


class TooFewBlocks(HashRunner):
    def allocate(self, block_size: int) -> int:
        super().allocate(block_size)
        return 3


class ForgetsEarlierChunks(HashRunner):
    """Reads only the tokens of this batch."""

    def context(self, row: Row) -> list[int]:
        return super().context(row)[row.start :] if row.count > 1 else super().context(row)


class AlwaysSamples(HashRunner):
    def _result(self, row: Row) -> Sampled:
        return super()._result(replace(row, sample=True))


class DependsOnBatchSize(HashRunner):
    """A result depends on the number of rows."""

    def logits(self, context: Sequence[int]) -> list[float]:
        return super().logits([len(self.batches[-1]), *context])


class ConsecutiveBlocks(HashRunner):
    """Assumes that the blocks follow the first one."""

    def read(self, block_table: Sequence[int], count: int) -> list[int]:
        table = [block_table[0] + i for i in range(len(block_table))]
        return super().read([each % self.blocks for each in table], count)


class ReverseOrder(HashRunner):
    """Executes row by row, the last one first."""

    def execute(self, batch: Sequence[Row]) -> list[Sampled]:
        return [super(ReverseOrder, self).execute([row])[0] for row in reversed(batch)][::-1]


class ReadsTooEarly(HashRunner):
    """Reads before earlier rows have written."""

    def execute(self, batch: Sequence[Row]) -> list[Sampled]:
        results = [
            super(ReadsTooEarly, self).execute([row])[0] for row in sorted(batch, key=lambda row: -row.start)
        ]
        order = sorted(range(len(batch)), key=lambda at: -batch[at].start)
        return [results[order.index(at)] for at in range(len(batch))]


class SamplesWhenGreedy(HashRunner):
    def choose(self, row: Row, context: Sequence[int]) -> int:
        return super().choose(replace(row, sampling=replace(row.sampling, temperature=1.0)), context)


class IgnoresTopK(HashRunner):
    def choose(self, row: Row, context: Sequence[int]) -> int:
        return super().choose(replace(row, sampling=replace(row.sampling, top_k=-1)), context)


class IgnoresSeed(HashRunner):
    def random_number(self, row: Row, position: int) -> float:
        return 0.3 + position % 3 / 5


class SharedGenerator(HashRunner):
    """Uses one random generator for all rows and ignores seeds."""

    draws = 0

    def random_number(self, row: Row, position: int) -> float:
        self.draws += 1
        return self.draws * 0.618 % 1


class IgnoresLogitBias(HashRunner):
    def adjusted_logits(self, row: Row, context: Sequence[int]) -> list[float]:
        return super().adjusted_logits(replace(row, sampling=replace(row.sampling, logit_bias={})), context)


class IgnoresMinTokens(HashRunner):
    def adjusted_logits(self, row: Row, context: Sequence[int]) -> list[float]:
        return super().adjusted_logits(replace(row, sampling=replace(row.sampling, min_tokens=0)), context)


class NoPresencePenalty(HashRunner):
    def adjusted_logits(self, row: Row, context: Sequence[int]) -> list[float]:
        return super().adjusted_logits(
            replace(row, sampling=replace(row.sampling, presence_penalty=0)), context
        )


class LogprobOfWrongToken(HashRunner):
    """Returns log-probabilities of the wrong token."""

    def logprob(self, row: Row, context: Sequence[int], token: int, count: int) -> TokenLogprob:
        return super().logprob(row, context, (token + 1) % 24, count)


class LogprobsAfterTemperature(HashRunner):
    """Returns log-probabilities after the temperature is applied."""

    def logprob(self, row: Row, context: Sequence[int], token: int, count: int) -> TokenLogprob:
        found = super().logprob(row, context, token, count)
        return replace(found, logprob=found.logprob * (row.sampling.temperature or 1.0))


class Unnormalized(HashRunner):
    def logprob(self, row: Row, context: Sequence[int], token: int, count: int) -> TokenLogprob:
        logits = self.logits(context)
        top = sorted(((each, value) for each, value in enumerate(logits)), key=lambda each: -each[1])[:count]
        return TokenLogprob(token, logits[token], tuple(top))


class WrongPromptLogprobs(HashRunner):
    """Returns wrong log-probabilities of the prompt."""

    def _prompt_logprobs(self, row: Row, context: Sequence[int]) -> list[TokenLogprob]:
        return [replace(each, logprob=-math.pi) for each in super()._prompt_logprobs(row, context)]


class PromptLogprobsOfLastChunk(HashRunner):
    """Returns prompt log-probabilities only for the last chunk."""

    def _prompt_logprobs(self, row: Row, context: Sequence[int]) -> list[TokenLogprob]:
        return super()._prompt_logprobs(row, context) if row.sample else []


class AcceptsAllDrafts(HashRunner):
    """Accepts every draft token."""

    def _result(self, row: Row) -> Sampled:
        result = super()._result(replace(row, drafts=0))
        drafts = row.token_ids[row.start + row.count - row.drafts : row.start + row.count]
        described = [TokenLogprob(token, -1.0, ((token, -1.0), (0, -2.0))) for token in drafts]
        return replace(result, accepted=row.drafts, accepted_logprobs=described)


class IgnoresMask(HashRunner):
    def masked_logits(self, row: Row, logits: list[float]) -> list[float]:
        return logits


class MasksAllRows(HashRunner):
    """Applies the mask of one row to all rows."""

    def masked_logits(self, row: Row, logits: list[float]) -> list[float]:
        rows = [each for each in self.batches[-1] if each.mask is not None]
        return super().masked_logits(rows[0], logits) if rows else logits


class MaskedLogprobs(HashRunner):
    def logprob(self, row: Row, context: Sequence[int], token: int, count: int) -> TokenLogprob:
        found = super().logprob(row, context, token, count)
        return found if row.mask is None else replace(found, logprob=found.logprob / 2)


class CloseRaises(HashRunner):
    def close(self) -> None:
        raise RuntimeError("the device is gone")


MASK = "a mask restricts the sampled tokens"
CHUNKS = "chunked prefill matches full prefill"
UNMODIFIED = "logprobs are those of the unmodified logits"
PROMPT_LOGPROBS = "prompt logprobs are returned with their chunks"


@pytest.mark.parametrize(
    ("kind", "test", "message"),
    [
        (TooFewBlocks, "the model loads and enough blocks are allocated", "allocate() returned 3 blocks"),
        (ForgetsEarlierChunks, CHUNKS, "with the prompt in chunks of 5"),
        (
            AlwaysSamples,
            "no token is sampled before the last prompt chunk",
            "a row with sample=False must return Sampled()",
        ),
        (DependsOnBatchSize, "results do not depend on the batch", "in a batch of different sequences"),
        (ConsecutiveBlocks, "blocks can be in any order", "with the block table"),
        (
            ConsecutiveBlocks,
            "sequences can share prefix blocks",
            "with the prefix blocks of another",
        ),
        (
            ReverseOrder,
            "a row reads blocks written by an earlier row of the batch",
            "an earlier row of the same batch writes",
        ),
        (
            ReadsTooEarly,
            "a row reads blocks written by an earlier row of the batch",
            "an earlier row of the same batch writes",
        ),
        (
            SamplesWhenGreedy,
            "greedy and single candidate sampling take the likeliest token",
            "temperature=0 must take the most likely token",
        ),
        (IgnoresTopK, "greedy and single candidate sampling take the likeliest token", "'top_k': 1"),
        (IgnoresSeed, "sampling depends only on seed and position", "eight seeds gave the same tokens"),
        (SharedGenerator, "sampling depends only on seed and position", "different tokens the second time"),
        (IgnoresLogitBias, "logit bias forces and bans tokens", "1000.0} must force its token"),
        (IgnoresMinTokens, "min tokens delays stop tokens", "min_tokens=4 must suppress"),
        (
            NoPresencePenalty,
            "penalties apply to generated tokens",
            "presence_penalty=1000.0 must prevent",
        ),
        (
            LogprobOfWrongToken,
            "logprobs include the sampled and the likeliest tokens",
            "expected the log-probability of token",
        ),
        (LogprobsAfterTemperature, UNMODIFIED, "must add up to"),
        (Unnormalized, UNMODIFIED, "must add up to at most 1"),
        (WrongPromptLogprobs, PROMPT_LOGPROBS, "-3.14"),
        (PromptLogprobsOfLastChunk, PROMPT_LOGPROBS, "with the prompt in chunks of 7"),
        (AcceptsAllDrafts, "drafts are accepted up to the first mismatch", "must give (accepted, token_id)"),
        (IgnoresMask, MASK, "with a mask of"),
        (MasksAllRows, MASK, "in a batch with a masked row"),
        (MaskedLogprobs, MASK, "a mask must not change log-probabilities"),
        (CloseRaises, "the runner can be closed", "the device is gone"),
    ],
)
def test_a_violation_is_detected(kind: type[HashRunner], test: str, message: str) -> None:
    case = type("Case", (HashContract,), {"runner": classmethod(lambda cls: kind())})
    found = {result.test: str(result.error) for result in run_contract(case) if result.error}
    assert message in found[test]
