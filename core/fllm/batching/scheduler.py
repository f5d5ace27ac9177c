"""Continuous batching: before every step, decide anew which sequences compute what.

The *prefill* of a sequence computes the keys and values (KV) of its prompt, in chunks where that is long;
each *decode* step after it computes those of the latest token and samples the next. KV live in *blocks* of a
fixed number of tokens; a sequence's *block table* lists its blocks in order. The *prefix cache* finds full
blocks that hold the same tokens already. When blocks run out, who was admitted last is *preempted*: it gives
its blocks back, waits at the front of the queue, and computes its tokens again later, which changes none of
them.

A row that decodes may carry *drafts*: guesses of the tokens to come, which the same step verifies. Accepted
ones are tokens like all others; the KV of the rest is overwritten when their places are computed again.

Waiting sequences are admitted round-robin across clients (see `fllm.batching.waiting_queue`). A sequence
that does not fit blocks those behind it. Those who run are in the order in which they were first admitted,
and those preempted, who wait before all others, go on with that order: so who was admitted first gets
blocks first, and is never preempted for another. The tokens of a step are given out otherwise. Each
sequence that decodes has one. What the step may spend on prefill goes to the sequence with the fewest
tokens left, then to the next, so that a short prompt does not wait for a long one; the eldest in prefill,
which was admitted before the others, is assured a share. Only so many run at once, and whoever comes is
younger: so each becomes the eldest in time, whatever other clients ask."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from msgspec import Struct

from fllm.batching.block_pool import BlockPool
from fllm.batching.limits import BatchLimits
from fllm.batching.ngram_drafter import Drafter
from fllm.batching.runner import Row, Sampled
from fllm.batching.sequence import Sequence
from fllm.batching.step_results import advance
from fllm.batching.waiting_queue import Waiting
from fllm.errors import BackendError
from fllm.structured_output.grammar_state import Guide
from fllm.values import EngineOutput, EngineStats, GenerateRequest, stop_tokens

Outcome = EngineOutput | BackendError
"""What comes of one step for one sequence."""

ELDEST_SHARE = 0.25
"""Of a step's prefill, assured to the sequence that has been in prefill for longest."""
LONE_SHARE = 1 / 3
"""Of a step's prefill, for the only one in prefill if it does not end there: others are likely to come."""
LULL = 1.0
"""Seconds after which a sequence that has no company is taken to stay alone."""


class Batch(Struct, eq=False):
    """What one step executes: a row for each of its sequences."""

    room: int
    """Tokens that may still be added."""
    sequences: list[Sequence] = []
    rows: list[Row] = []


class Scheduler:
    """Owns all sequences and their blocks; called by one thread: `schedule`, execute, `complete`, again."""

    def __init__(
        self,
        pool: BlockPool,
        limits: BatchLimits,
        *,
        max_model_len: int,
        eos_token_ids: Iterable[int] = (),
        drafter: Callable[[], Drafter] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._limits = limits
        self._max_model_len = min(max_model_len, pool.num_blocks * pool.block_size)
        self._eos_token_ids = tuple(eos_token_ids)
        self._drafter = drafter
        self._clock = clock
        self._crowded = -math.inf
        """When there was more than one sequence."""
        self._waiting = Waiting()
        self._running: dict[str, Sequence] = {}
        self._preemptions = self._prefix_queries = self._prefix_hits = 0
        self._drafted = self._accepted = 0

    @property
    def busy(self) -> bool:
        """There is something to schedule."""
        return bool(self._running or self._waiting)

    def status(self) -> EngineStats:
        """Gauges and totals; may be called from any thread."""
        return EngineStats(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_blocks=self._pool.num_blocks,
            kv_blocks_used=self._pool.num_blocks - self._pool.free,
            prefix_queries=self._prefix_queries,
            prefix_hits=self._prefix_hits,
            preemptions=self._preemptions,
            drafted=self._drafted,
            accepted=self._accepted,
        )

    def add(self, prompt: GenerateRequest, *, seed: int, arrived: float, guide: Guide | None = None) -> None:
        """Queue a prompt, which is not empty and shorter than ``max_model_len``."""
        self._waiting.add(
            Sequence(
                id=prompt.request_id,
                client=prompt.client,
                token_ids=list(prompt.token_ids),
                prompt_length=len(prompt.token_ids),
                sampling=prompt.sampling,
                stop_ids=stop_tokens(prompt.sampling, self._eos_token_ids),
                seed=seed,
                arrived=arrived,
                root=self._pool.root(prompt.group or prompt.request_id),
                drafter=self._drafter() if self._drafter and guide is None else None,
                guide=guide,
            )
        )

    def abort(self, request_id: str) -> None:
        """Drop a sequence and free its blocks at once; nothing happens if it is over already."""
        sequence = self._running.pop(request_id, None) or self._waiting.drop(request_id)
        if sequence is not None:
            self._release(sequence)

    def schedule(self) -> Batch:
        """The next batch: the next token for those who decode, then chunks for those in prefill."""
        if len(self._running) + len(self._waiting) > 1:
            self._crowded = self._clock()
        batch = Batch(self._limits.max_num_batched_tokens)
        decoding = [s for s in list(self._running.values()) if s.remaining == 1 and self._grow(s)]
        prefilling = [s for s in self._running.values() if s.remaining > 1]
        prefilling += self._admit()
        for sequence in decoding[: batch.room]:
            self._put(sequence, 1, batch, self._draft(sequence, batch.room))
        if prefilling and batch.room:
            self._prefill(prefilling, batch)
        return batch

    def complete(self, batch: Batch, results: Iterable[Sampled]) -> list[tuple[str, Outcome]]:
        """Take in what the batch computed; gives a step for each sequence that got on, or why it can't."""
        outcomes: list[tuple[str, Outcome]] = []
        for sequence, row, result in zip(batch.sequences, batch.rows, results, strict=True):
            sequence.computed += row.count - row.drafts
            sequence.prompt_logprobs += result.prompt_logprobs
            if sequence.computed < sequence.length:
                continue  # only a chunk of its prompt
            outcome = advance(sequence, row, result, self._max_model_len)
            if row.drafts:
                self._settle(sequence, row, result.accepted)
            outcomes.append((sequence.id, outcome))
            if isinstance(outcome, BackendError) or outcome.finish_reason is not None:
                self.abort(sequence.id)
        return outcomes

    def discard(self, batch: Batch) -> list[str]:
        """Drop the sequences of a batch that failed; what it would have computed is found by nobody."""
        for sequence, row in zip(batch.sequences, batch.rows, strict=True):
            for block in sequence.block_table[row.start // self._pool.block_size :]:
                self._pool.forget(block)
        for sequence in batch.sequences:
            self.abort(sequence.id)
        return [sequence.id for sequence in batch.sequences]

    def _grow(self, sequence: Sequence) -> bool:
        """Give a running sequence blocks for all its tokens, preempting from the end, itself at the last."""
        while sequence.id in self._running:
            blocks = self._pool.take(self._lacking(sequence, sequence.length))
            if blocks is not None:
                sequence.block_table += blocks
                return True
            self._preempt()
        return False

    def _preempt(self) -> None:
        """Send who was admitted last back to the front of the queue."""
        _, sequence = self._running.popitem()
        self._release(sequence)
        if not sequence.started:
            sequence.prompt_logprobs = []
        self._waiting.put_back(sequence)
        self._preemptions += 1

    def _admit(self) -> list[Sequence]:
        """Let those who wait run, whose turn it is first, until one does not fit; gives those who may.

        Called before the batch publishes any block, since not all of them will have a row in it.
        """
        admitted = []
        while len(self._running) < self._limits.max_num_seqs:
            sequence = self._waiting.first()
            if sequence is None or not self._place(sequence):
                break
            self._waiting.take()
            self._running[sequence.id] = sequence
            admitted.append(sequence)
        return admitted

    def _place(self, sequence: Sequence) -> bool:
        """Give a waiting sequence blocks for all its tokens, if so many are free; the cache may have some."""
        cached = self._cached(sequence)
        blocks = self._pool.take(self._blocks(sequence.length) - len(cached), cached)
        if blocks is None:
            return False
        sequence.block_table = blocks
        sequence.computed = len(cached) * self._pool.block_size
        return True

    def _prefill(self, sequences: list[Sequence], batch: Batch) -> None:
        """Add chunks of these, who come in the order of their admission, while the budget lasts.

        Only who gets a row shares blocks: if the batch that fills them fails, it is dropped with the others.
        """
        price, eldest = self._limits.price, sequences[0]
        alone = self._clock() - self._crowded > LULL
        budget = self._limits.budget(batch.room, alone=alone)
        if not alone and len(sequences) == 1 and eldest.remaining * price(eldest.computed) > budget:
            budget *= LONE_SHARE
        kept = max(ELDEST_SHARE * budget, price(eldest.computed))
        for sequence in sorted(sequences, key=lambda each: each.remaining):
            if sequence is eldest:
                kept = 0
            elif price(sequence.computed) > budget - kept:
                continue
            self._share(sequence)
            token = price(sequence.computed)
            count = max(min(int((budget - kept) / token), sequence.remaining), 1)
            self._put(sequence, count, batch)
            budget -= count * token

    def _share(self, sequence: Sequence) -> None:
        """Exchange blocks that it has not filled for those that others have filled with its tokens since."""
        cached = self._cached(sequence)
        start = sequence.computed // self._pool.block_size
        end = start + len(cached)
        if cached:
            self._pool.take(0, cached)
            self._pool.release(sequence.block_table[start:end])
            sequence.block_table[start:end] = cached
            sequence.computed = end * self._pool.block_size

    def _cached(self, sequence: Sequence) -> list[int]:
        """What the prefix cache has of the blocks that it has yet to fill.

        The last token is always computed, cached or not: without it there are no logits to sample from.
        """
        if sequence.owes_prompt_logprobs:
            return []
        size = self._pool.block_size
        digests = sequence.digests((sequence.length - 1) // size, size)
        return self._pool.match(digests[sequence.computed // size :])

    def _note_start(self, sequence: Sequence) -> None:
        sequence.queue_time = self._clock() - sequence.arrived
        sequence.cached_tokens = sequence.computed
        if not sequence.owes_prompt_logprobs:
            self._prefix_queries += sequence.prompt_length
            self._prefix_hits += sequence.cached_tokens

    def _put(self, sequence: Sequence, count: int, batch: Batch, drafts: list[int] | None = None) -> None:
        """Add a row that computes the sequence's next ``count`` tokens, and drafts after them."""
        if sequence.queue_time is None:
            self._note_start(sequence)
        drafts = drafts or []
        start = sequence.computed
        sample = start + count == sequence.length and sequence.sampling.max_tokens > 0
        guide = sequence.guide if sample else None
        if guide is not None:
            guide.begin(sequence.stop_ids, may_end=sequence.may_stop)
        self._publish(sequence, start, start + count)
        batch.room -= count + len(drafts)
        batch.sequences.append(sequence)
        batch.rows.append(
            Row(
                token_ids=[*sequence.token_ids, *drafts] if drafts else sequence.token_ids,
                prompt_length=sequence.prompt_length,
                start=start,
                count=count + len(drafts),
                block_table=sequence.block_table,
                sampling=sequence.sampling,
                seed=sequence.seed,
                sample=sample,
                drafts=len(drafts),
                mask=None if guide is None else guide.mask,
                prompt_logprobs=sequence.owes_prompt_logprobs,
            )
        )

    def _draft(self, sequence: Sequence, room: int) -> list[int]:
        """Guesses for a sequence that decodes, where few run; they take no room or block that others need."""
        running, size = len(self._running), self._pool.block_size
        if sequence.drafter is None or not sequence.started or running > self._limits.max_drafting_seqs:
            return []
        blocks = len(sequence.block_table) + max(self._pool.free - running, 0)
        most = min(
            room - running,
            blocks * size - sequence.length,
            self._max_model_len - sequence.length - 1,
            sequence.sampling.max_tokens - sequence.generated - 1,
        )
        if most < 1:
            return []
        drafts = sequence.drafter.draft(sequence.token_ids, most)
        sequence.block_table += self._pool.take(self._lacking(sequence, sequence.length + len(drafts))) or []
        return drafts

    def _settle(self, sequence: Sequence, row: Row, accepted: int) -> None:
        """Take in what became of a row's drafts: all tokens but the last sampled one have their KV now."""
        assert sequence.drafter, "somebody drafted"
        self._publish(sequence, sequence.computed, sequence.length - 1)
        sequence.computed = sequence.length - 1
        sequence.drafter.learn(row.drafts, accepted)
        self._drafted += row.drafts
        self._accepted += accepted

    def _publish(self, sequence: Sequence, start: int, end: int) -> None:
        """Enter the blocks that this row fills into the prefix cache, for the very next row to find.

        They are not computed yet, but the runner writes the KV of all rows before any row reads.
        """
        size = self._pool.block_size
        if start // size < end // size:
            digests = sequence.digests(end // size, size)
            for index in range(start // size, end // size):
                self._pool.register(sequence.block_table[index], digests[index])

    def _lacking(self, sequence: Sequence, tokens: int) -> int:
        """Blocks that it needs beyond its own to hold so many tokens; it may have some from drafts."""
        return max(self._blocks(tokens) - len(sequence.block_table), 0)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._pool.block_size)

    def _release(self, sequence: Sequence) -> None:
        self._pool.release(sequence.block_table)
        sequence.block_table = []
        sequence.computed = 0
