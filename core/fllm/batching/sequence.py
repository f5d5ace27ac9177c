"""A sequence: one prompt and its growing answer, as the scheduler sees them."""

from __future__ import annotations

from msgspec import Struct

from fllm.batching.block_pool import chain
from fllm.batching.ngram_drafter import Drafter
from fllm.structured_output.grammar_state import Guide
from fllm.values import SamplingParams, TokenLogprob


class Sequence(Struct, kw_only=True, eq=False):
    """What the scheduler knows of one sequence; it waits or runs according to which queue it is in.

    Of its ``token_ids`` (prompt and answer), the first ``computed`` have their KV in the blocks of
    ``block_table``. The others must be computed before the next token can be sampled: the prompt at first,
    one token in each decode step, all of them after a preemption.
    """

    id: str
    client: str = ""
    token_ids: list[int]
    prompt_length: int
    sampling: SamplingParams
    stop_ids: frozenset[int]
    seed: int
    arrived: float
    """By the scheduler's clock, in seconds."""
    root: bytes
    """Where its chain of digests begins."""
    drafter: Drafter | None = None
    guide: Guide | None = None
    """Where its answer is constrained."""
    block_table: list[int] = []
    computed: int = 0
    chained: list[bytes] = []
    """Digests of its full blocks, as far as somebody asked for them."""
    queue_time: float | None = None
    """Seconds that it waited, once it was admitted for the first time."""
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache at that time."""
    prompt_logprobs: list[TokenLogprob] = []
    started: bool = False
    """Its first step was given out."""

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.token_ids)

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next can be sampled: one of a sequence that decodes."""
        return self.length - self.computed

    @property
    def generated(self) -> int:
        """Tokens of the answer."""
        return self.length - self.prompt_length

    @property
    def may_stop(self) -> bool:
        """It has ``min_tokens``, not counting the one that would end it."""
        return self.generated >= self.sampling.min_tokens

    @property
    def owes_prompt_logprobs(self) -> bool:
        """Its prompt must be computed for the log-probabilities' sake, even where its KV is cached."""
        return self.sampling.prompt_logprobs is not None and not self.started

    def digests(self, blocks: int, block_size: int) -> list[bytes]:
        """The digests of its first so many blocks, all of them full."""
        while len(self.chained) < blocks:
            parent = self.chained[-1] if self.chained else self.root
            start = len(self.chained) * block_size
            self.chained.append(chain(parent, self.token_ids[start : start + block_size]))
        return self.chained[:blocks]
