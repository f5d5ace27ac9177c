"""A model runner whose "model" is a hash of everything that its KV cache holds for a sequence.

It keeps token ids in its blocks and reads them back through the block table alone, so any mistake with
blocks, the prefix cache, chunks or preemption changes the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import cycle, islice

from fllm.batching import Row, RunnerCapabilities, Sampled, stop_tokens
from fllm.drafter import DraftedSequence, DraftRequest, DraftResult
from fllm.values import GenerateRequest, ModelCard, Progress, SamplingParams, TokenLogprob

VOCABULARY = 11


def pick(context: Sequence[int], seed: int) -> int:
    """Return the next token after these: this is the "model"."""
    digest = blake2b(repr((list(context), seed)).encode(), digest_size=4).digest()
    return int.from_bytes(digest) % VOCABULARY


def logprob(context: Sequence[int], token: int) -> TokenLogprob:
    """Return a number that depends on the token and on everything before it."""
    return TokenLogprob(token, -float(pick(context, token)))


def expected_tokens(
    prompt: GenerateRequest, seed: int, *, eos: Sequence[int] = (), max_model_len: int = 1000
) -> list[int]:
    """Return the model's output for a request that is alone, without a cache."""
    context, sampling = list(prompt.token_ids), prompt.sampling
    stops = stop_tokens(sampling, eos)
    limit = min(len(context) + sampling.max_tokens, max_model_len)
    while len(context) < limit:
        exist = len(context) - len(prompt.token_ids)
        context.append(_unless_banned(pick(context, seed), sampling, exist, stops))
        if exist >= sampling.min_tokens and context[-1] in stops:
            break
    return context[len(prompt.token_ids) :]


def _unless_banned(token: int, sampling: SamplingParams, exist: int, stops: frozenset[int]) -> int:
    while exist < sampling.min_tokens and token in stops:
        token = (token + 1) % VOCABULARY
    return token


class Oracle:
    """A drafter that knows the "model"; for each sequence, ``rights`` say which of its drafts are right."""

    def __init__(self, rights: Sequence[bool] = (True,), width: int = 5) -> None:
        self._rights = rights
        self._width = width
        self._rights_of: dict[str, Iterator[bool]] = {}
        self.results: list[tuple[int, int]] = []
        """Numbers of drafted and accepted tokens."""
        self.ended: list[str] = []
        self.closed = False

    def start(self, sequence: DraftedSequence) -> None:
        self._rights_of[sequence.id] = cycle(self._rights)

    def propose(self, batch: Sequence[DraftRequest]) -> list[list[int]]:
        return [self._draft(each.sequence, each.max_tokens) for each in batch]

    def verified(self, results: Sequence[DraftResult]) -> None:
        self.results += [(each.drafted, each.accepted) for each in results]

    def end(self, sequence: DraftedSequence) -> None:
        del self._rights_of[sequence.id]
        self.ended.append(sequence.id)

    def close(self) -> None:
        self.closed = True

    def _draft(self, sequence: DraftedSequence, max_tokens: int) -> list[int]:
        context = list(sequence.token_ids)
        for right in islice(self._rights_of[sequence.id], min(self._width, max_tokens)):
            context.append((pick(context, sequence.seed) + (not right)) % VOCABULARY)
        return context[len(sequence.token_ids) :]


class FakeRunner:
    """Implements `ModelRunner`; ``hook`` is called with every batch before it is executed, and may raise."""

    capabilities = RunnerCapabilities(verifies_drafts=True)

    def __init__(
        self,
        *,
        blocks: int = 64,
        block_size: int = 4,
        max_model_len: int = 1000,
        eos: tuple[int, ...] = (),
        hook: Callable[[Sequence[Row]], object] = lambda rows: None,
    ) -> None:
        self.card = ModelCard(
            tokenizer="", max_model_len=max_model_len, eos_token_ids=eos, runtime={"vocab_size": VOCABULARY}
        )
        self.blocks = blocks
        self.hook = hook
        self.batches: list[list[Row]] = []
        self.closed = False
        self.allocate(block_size)

    def load(self, progress: Callable[[Progress], None]) -> ModelCard:
        progress(Progress("hashing", 1, 1))
        return self.card

    def allocate(self, block_size: int) -> int:
        self._block_size = block_size
        self._slots = [[-1] * block_size for _ in range(self.blocks)]
        return self.blocks

    def execute(self, batch: Sequence[Row]) -> list[Sampled]:
        self.batches.append(list(batch))
        self.hook(batch)
        written = [slot for row in batch for slot in self._write(row)]
        assert len(written) == len(set(written)), "two rows wrote to the same slot"
        return [self._result(row) for row in batch]

    def close(self) -> None:
        self.closed = True

    def read(self, block_table: Sequence[int], count: int) -> list[int]:
        """Return the first ``count`` tokens in the blocks of a block table."""
        return [self._slots[block][offset] for block, offset in self._places(block_table, 0, count)]

    def _places(self, block_table: Sequence[int], start: int, end: int) -> list[tuple[int, int]]:
        size = self._block_size
        return [(block_table[position // size], position % size) for position in range(start, end)]

    def _write(self, row: Row) -> list[tuple[int, int]]:
        assert row.count > 0
        places = self._places(row.block_table, row.start, row.start + row.count)
        for (block, offset), token in zip(places, row.token_ids[row.start :], strict=False):
            self._slots[block][offset] = token
        return places

    def _result(self, row: Row) -> Sampled:
        certain = row.start + row.count - row.drafts
        context = self.read(row.block_table, row.start + row.count)
        prompt = row.token_ids[: row.prompt_length]
        positions = range(row.start + 1, min(row.start + row.count + 1, row.prompt_length))
        logprobs = [logprob(context[:p], prompt[p]) for p in positions] if row.prompt_logprobs else []
        if not row.sample:
            return Sampled(prompt_logprobs=logprobs)
        tokens: list[int] = []
        for place in range(certain, len(context) + 1):
            tokens.append(self._next(row, context[:place]))
            if place < len(context) and tokens[-1] != context[place]:
                break
        with_logprobs = row.sampling.logprobs is not None
        found = (
            [logprob(context[: certain + i], token) for i, token in enumerate(tokens)]
            if with_logprobs
            else []
        )
        return Sampled(
            token_id=tokens[-1],
            logprob=found[-1] if with_logprobs else None,
            accepted=len(tokens) - 1,
            accepted_logprobs=found[:-1],
            prompt_logprobs=logprobs,
        )

    def _next(self, row: Row, context: list[int]) -> int:
        stops = stop_tokens(row.sampling, self.card.eos_token_ids)
        token = pick(context, row.seed)
        return _unless_banned(token, row.sampling, len(context) - row.prompt_length, stops)
