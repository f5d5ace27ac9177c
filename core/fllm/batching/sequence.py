"""A sequence: one prompt and its output, with the state that the scheduler keeps for it."""

from __future__ import annotations

from msgspec import Struct

from fllm.batching.block_hashes import BlockHasher, hash_root
from fllm.batching.kv_offload import Fetch
from fllm.batching.runner import PromptImages
from fllm.batching.token_filter import TokenFilter
from fllm.structured_output.grammar_state import GrammarState
from fllm.values import BACKGROUND_PRIORITY, SamplingParams, TokenLogprob


class Sequence(Struct, kw_only=True, eq=False):
    """The scheduler's state of one sequence, which is either waiting or running.

    The KV of the first ``computed`` of its ``token_ids`` (prompt and output) is in the blocks of
    ``block_table``. The other tokens must be computed before the next one can be sampled: the prompt at
    first, one token in each decode step, all of them after a preemption.
    """

    id: str
    client: str = ""
    priority: int = 0
    """Sequences of the same client with a lower number are admitted first."""
    token_ids: list[int]
    prompt_length: int
    sampling: SamplingParams
    stop_ids: frozenset[int]
    seed: int
    arrival_time: float
    """Arrival by the scheduler's clock, in seconds."""
    namespace: bytes = b""
    """Mixed into the hash of its first private block, and so into all that follow."""
    shared_tokens: int = 0
    """Number of its first tokens whose full blocks are outside of the namespace."""
    adapter: int = 0
    """Id of its LoRA adapter; 0 for none. Blocks are never shared between adapters."""
    grammar: GrammarState | None = None
    """State of the grammar, if the output is constrained."""
    images: PromptImages | None = None
    token_filter: TokenFilter | None = None
    """Restricts its tokens, if the request does so without a grammar."""
    is_long: bool = False
    """Whether its KV are those of sequences longer than `ModelCard.long_context_start`."""
    block_table: list[int] = []
    slot: int = 0
    """Its number among the running sequences, while it runs."""
    computed: int = 0
    block_hashes: list[bytes] = []
    """Hashes of its first full blocks, as far as they were needed."""
    looked_up: bool = False
    """Whether its blocks were looked up in the tiers of the prefix cache, before it ran."""
    fetch: Fetch | None = None
    """Its blocks that come from RAM or the disk."""
    queue_time: float | None = None
    """Seconds from its arrival to its first row; ``None`` before."""
    cached_tokens: int = 0
    """Prompt tokens that were in the prefix cache when its first row was scheduled."""
    prompt_logprobs: list[TokenLogprob] = []
    started: bool = False
    """Whether its first output was returned."""
    forced: int = 0
    """Number of its last tokens that the grammar has forced and no output contains yet."""
    forced_logprobs: list[TokenLogprob] = []
    """Log-probabilities of the forced tokens that are computed, if they are requested."""

    @property
    def is_background(self) -> bool:
        """Whether it runs only where others leave room."""
        return self.priority >= BACKGROUND_PRIORITY

    @property
    def length(self) -> int:
        """Number of tokens in prompt and output."""
        return len(self.token_ids)

    @property
    def first_row_end(self) -> int:
        """Number of first tokens that are computed together, or found in the prefix cache."""
        return self.images.end if self.images else 0

    @property
    def remaining(self) -> int:
        """Number of tokens to compute before the next can be sampled: 1 for a sequence that decodes."""
        return self.length - self.computed

    @property
    def generated(self) -> int:
        """Number of tokens in the output."""
        return self.length - self.prompt_length

    @property
    def has_min_tokens(self) -> bool:
        """Whether the output has ``min_tokens``, not counting a stop token."""
        return self.generated >= self.sampling.min_tokens

    @property
    def needs_prompt_logprobs(self) -> bool:
        """Whether its prompt must be computed for its log-probabilities, even where its KV is cached."""
        return self.sampling.prompt_logprobs is not None and not self.started

    @property
    def needs_forced_logprobs(self) -> bool:
        """Whether the forced tokens must be computed for their log-probabilities, before the next token."""
        return self.forced > 0 and self.sampling.logprobs is not None

    @property
    def before_forced(self) -> int:
        """Position of the token before the forced ones: its logits give the first of their probabilities."""
        return self.length - 1 - self.forced

    @property
    def first_needed(self) -> int:
        """Position of the first token whose logits are needed: it must be computed, even if it is cached."""
        if self.needs_prompt_logprobs:
            return 0
        return self.before_forced if self.needs_forced_logprobs else self.length - 1

    @property
    def chunk_limit(self) -> int:
        """Maximum number of tokens of its next row: forced tokens that need logprobs have their own rows."""
        ends = (self.before_forced, self.length - 1) if self.needs_forced_logprobs else ()
        return next((end - self.computed for end in ends if self.computed < end), self.remaining)

    def limits_left(self, max_model_len: int) -> dict[str, int]:
        """Return how many more tokens the output must and may have, for `GrammarState.accept_token`."""
        sampling, generated = self.sampling, self.generated
        return {
            "min_left": max(sampling.min_tokens - generated, 0),
            "max_left": max(min(sampling.max_tokens - generated, max_model_len - self.length), 0),
        }

    @property
    def restricted(self) -> bool:
        """Whether only some tokens may come next."""
        return self.grammar is not None or self.token_filter is not None

    def next_mask(self) -> memoryview:
        """Return the bitmask of the tokens that may come next; it may wait for the grammar."""
        mask = None if self.grammar is None else self.grammar.wait_for_mask()
        if self.token_filter is None:
            assert mask is not None, "a sequence without restrictions has no mask"
            return mask
        start = max(self.prompt_length, self.length - self.token_filter.context_length)
        return self.token_filter.mask(self.token_ids[start:], mask, may_stop=self.has_min_tokens)

    def hash_blocks(self, count: int, block_size: int) -> list[bytes]:
        """Return the hashes of its first ``count`` blocks, which must be full."""
        if len(self.block_hashes) < count:
            root = hash_root(self.adapter, is_long=self.is_long)
            hasher = BlockHasher(block_size, root, self.namespace, self.shared_tokens)
            hasher.extend(self.block_hashes, self.token_ids, count)
        return self.block_hashes[:count]
