"""The scheduler of continuous batching: before every step, it selects the tokens to compute.

Terms (those about blocks are in `fllm.batching.sequence_blocks`):

- The *prefill* of a sequence computes the keys and values (KV) of its prompt, in chunks if it is long. Each
  *decode* step then computes the KV of the latest token and samples the next.
- A grammar may *force* tokens, which need not be sampled. A row computes them like a chunk of a prompt,
  within the prefill budget, and samples the token after them.
- Some models compute a sequence differently once it is *long* (`ModelCard.long_context_start`). Then all its
  tokens are computed again. Blocks of long sequences are cached apart from those of short ones.
- A decode row may carry *drafts*: guesses of the next tokens, which the same step verifies. Accepted drafts
  are ordinary tokens. The KV of rejected ones is overwritten when their positions are computed again.

Order of blocks: waiting sequences are admitted round-robin across clients (see
`fllm.batching.waiting_queue`). A sequence that does not fit blocks those after it. Running sequences stay in
the order of their first admission. When blocks run out, the last of them is *preempted*: it frees its blocks,
waits at the front of the queue, and later computes its tokens again, which does not change them. So a
sequence that was admitted earlier gets blocks first and is never preempted in favor of a later one. There is
one exception: if the batch is full, a client that runs few takes the place of the last sequence of the client
that runs most.

Sequences in the *background* (`BACKGROUND_PRIORITY`) wait until no other waits, and are preempted first: for
a place in the batch, and for blocks. While others run, one of them at a time gets a row in each step, since a
larger batch takes longer, and a share of the prefill budget.

Order of tokens: each sequence that decodes gets one token per step. The prefill budget of the step goes to
the sequence with the fewest tokens left, then to the next, so that a short prompt does not wait for a long
one. A share of it is reserved for the oldest sequence in prefill. Since the number of running sequences is
limited, and new ones are always younger, each becomes the oldest in time. So no sequence starves, whatever
other clients send.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from fllm.batching.background import Background
from fllm.batching.batch import Batch, computes_forced
from fllm.batching.block_pool import BlockPool
from fllm.batching.drafting import Drafting, DraftRoom, Verified
from fllm.batching.kv_offload import KVOffload
from fllm.batching.limits import BatchLimits
from fllm.batching.prefill_budget import PrefillBudget
from fllm.batching.runner import PromptImages, Sampled
from fllm.batching.sequence import Sequence
from fllm.batching.sequence_blocks import SequenceBlocks
from fllm.batching.step_results import append_forced, append_tokens, finish_output, finish_reason
from fllm.batching.token_filter import TokenFilter
from fllm.batching.waiting_queue import WaitingQueue
from fllm.errors import FllmError
from fllm.structured_output.grammar_state import GrammarState
from fllm.values import EngineOutput, EngineStats, GenerateRequest, stop_tokens

Outcome = EngineOutput | FllmError
"""Result of one step for one sequence."""

CLIENT_SHARE = 1 / 8
"""Share of a full batch that a client gets at once, from the client that runs most."""
BACKGROUND_PREFILL_SHARE = 0.25
"""Share of a step's prefill budget for sequences in the background while others run."""
OLDEST_PREFILL_SHARE = 0.25
"""Share of a step's prefill budget that is reserved for the oldest sequence in prefill."""


class Scheduler:
    """Owns all sequences and their blocks. One thread repeats: `schedule`, execute the batch, `complete`."""

    def __init__(
        self,
        pool: BlockPool,
        limits: BatchLimits,
        *,
        max_model_len: int,
        long_context_start: int | None = None,
        eos_token_ids: Iterable[int] = (),
        drafting: Drafting | None = None,
        recurrent: bool = False,
        offload: KVOffload | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._blocks = SequenceBlocks(pool, offload)
        self._limits = limits
        self._long_context_start = long_context_start
        self._max_model_len = min(max_model_len, self._blocks.capacity)
        self._eos_token_ids = tuple(eos_token_ids)
        self._drafting = drafting
        self._draft_room = DraftRoom(
            self._blocks, max_model_len=self._max_model_len, long_context_start=long_context_start
        )
        self._recurrent = recurrent
        """Whether a sequence can't go back by a token: see `ModelCard.recurrent`."""
        self._clock = clock
        self._prefill_budget = PrefillBudget(limits, clock)
        self._waiting = WaitingQueue()
        self._running: dict[str, Sequence] = {}
        self._free_slots = list(range(limits.max_num_seqs))
        self._fetching: dict[str, Sequence] = {}
        """Sequences that wait for their blocks from the disk."""
        self._background = Background()
        self._constrained: dict[str, Sequence] = {}
        """Sequences with a grammar, whether they run or wait."""
        self._starting: dict[str, Sequence] = {}
        """Sequences whose grammar has not found yet which tokens begin their text. Meanwhile, all of their
        prompt but the last token is computed."""
        self._unaccepted: dict[str, EngineOutput] = {}
        """Outputs of sequences whose grammar has not accepted the last token yet, by the sequence's id."""
        self._preemptions = self._prefix_queries = self._prefix_hits = 0

    @property
    def busy(self) -> bool:
        """Whether there is something to schedule."""
        return bool(self._running or self._waiting or self._fetching)

    def status(self) -> EngineStats:
        """Return gauges and totals. Any thread may call this."""
        return EngineStats(
            running=len(self._running),
            waiting=len(self._waiting) + len(self._fetching),
            kv_blocks=self._blocks.count,
            kv_blocks_used=self._blocks.used,
            prefix_queries=self._prefix_queries,
            prefix_hits=self._prefix_hits,
            preemptions=self._preemptions,
            drafted=self._drafting.drafted if self._drafting else 0,
            accepted=self._drafting.accepted if self._drafting else 0,
            drafters_off=int(self._drafting is not None and self._drafting.is_off),
            cache_tiers=self._blocks.tier_stats(),
        )

    def add(
        self,
        request: GenerateRequest,
        *,
        seed: int,
        arrival_time: float,
        grammar: GrammarState | None = None,
        token_filter: TokenFilter | None = None,
        images: PromptImages | None = None,
    ) -> None:
        """Queue a request. Its prompt must not be empty and must be shorter than ``max_model_len``."""
        namespace, shared_tokens = self._blocks.namespace(request)
        token_ids = [*request.token_ids, *request.generated]
        sequence = Sequence(
            id=request.request_id,
            client=request.client,
            priority=request.priority,
            token_ids=token_ids,
            prompt_length=len(request.token_ids),
            sampling=request.sampling,
            stop_ids=stop_tokens(request.sampling, self._eos_token_ids),
            seed=seed,
            arrival_time=arrival_time,
            namespace=namespace,
            shared_tokens=shared_tokens,
            adapter=request.adapter,
            is_long=self._exceeds_short_context(len(token_ids)),
            grammar=grammar,
            token_filter=token_filter,
            images=images,
            started=bool(request.generated),
        )
        self._waiting.add(sequence)
        self._background.add(sequence)
        if self._drafting is not None:
            self._drafting.start(sequence)
        if token_filter is not None:
            for token in request.generated:
                token_filter.accept(token)
        if grammar is not None:
            limits_left = sequence.limits_left(self._max_model_len)
            grammar.start(sequence.stop_ids, generated=request.generated, **limits_left)
            self._constrained[sequence.id] = self._starting[sequence.id] = sequence

    def abort(self, request_id: str) -> None:
        """Drop a sequence and free its blocks at once. Do nothing if it has already ended."""
        if sequence := self._running.get(request_id):
            self._stop_running(sequence)
        else:
            sequence = self._fetching.pop(request_id, None) or self._waiting.remove(request_id)
        if sequence is not None:
            self._blocks.free(sequence)
            self._unaccepted.pop(request_id, None)
            self._starting.pop(request_id, None)
            self._background.discard(request_id)
            if self._drafting is not None:
                self._drafting.end(request_id)
            if sequence.grammar is not None:
                sequence.grammar.cancel()
                del self._constrained[request_id]

    def poll_grammars(self) -> list[tuple[str, Outcome]]:
        """Return the outcomes of sequences whose grammar has failed, or has accepted its token late.

        Append the tokens that begin the text to those whose grammar has found them.
        """
        outcomes: list[tuple[str, Outcome]] = []
        for sequence in list(self._starting.values()):
            if sequence.grammar and sequence.grammar.wait_until_accepted():
                del self._starting[sequence.id]
                append_forced(sequence)
        for sequence in list(self._constrained.values()):
            grammar = sequence.grammar
            assert grammar is not None
            output = self._unaccepted.get(sequence.id)
            if grammar.error is not None or (output is not None and grammar.is_accepted()):
                outcomes.append(self._finish(sequence, output or EngineOutput()))
        return outcomes

    def schedule(self) -> Batch:
        """Return the next batch: one token of each sequence that decodes, then chunks of prompts.

        It is empty if all sequences wait for their grammars, or for their blocks from the disk.
        """
        self._end_fetches()
        if self._count_competing() > 1:
            self._prefill_budget.record_concurrent()
        self._admit_newcomers()
        self._recompute_longer()
        batch = Batch(self._limits.max_num_batched_tokens)
        running: Iterable[Sequence] = self._running.values()
        if self._background:  # they lose their blocks to the others, so those get theirs first
            running = sorted(running, key=lambda each: each.is_background)
        ready = [s for s in running if not self._is_late(s)]
        ready = [s for s in ready if self._append_blocks(s)]
        admitted = self._admit()
        if self._background:
            ready = [s for s in ready if s.id in self._running and s not in admitted]
            paused = self._background.pause(ready + admitted)
            ready, admitted = [s for s in ready if s not in paused], [s for s in admitted if s not in paused]
        decoding = [s for s in ready if s.remaining == 1]
        prefilling = [s for s in ready if s.remaining > 1] + admitted
        drafts: Mapping[str, list[int]] = {}
        if self._drafting is not None:
            self._draft_room.begin_step(len(self._running), batch.token_budget)
            drafts = self._drafting.draft(decoding, self._draft_room, is_measured=not prefilling)
        for sequence in decoding[: batch.token_budget]:
            self._schedule_row(sequence, 1, batch, drafts.get(sequence.id))
        self._blocks.save_evicted()
        if prefilling and batch.token_budget:
            self._prefill(prefilling, batch)
        return batch

    def complete(self, batch: Batch, results: Iterable[Sampled]) -> list[tuple[str, Outcome]]:
        """Apply the results of a batch. Return the outcome of each sequence that has a new token.

        The others are those whose prompt is not computed, and those that wait for their grammar. Sequences
        that finished or failed are dropped.
        """
        outputs: list[tuple[Sequence, EngineOutput]] = []
        verified: list[Verified] = []
        for sequence, row, result in zip(batch.sequences, batch.rows, results, strict=True):
            sequence.computed += row.count - row.drafts
            if computes_forced(sequence, row):
                sequence.forced_logprobs += result.prompt_logprobs
            else:
                sequence.prompt_logprobs += result.prompt_logprobs
            if sequence.computed < sequence.length:
                continue  # only a chunk of its prompt
            if row.mask is not None and sequence.grammar and sequence.grammar.missed_mask:
                self._undo_token(sequence)  # another step samples the same token, with the mask
                continue
            output = append_tokens(sequence, row, result, self._max_model_len)
            if row.drafts:
                self._blocks.cache_full(sequence, sequence.computed, sequence.length - 1)
                sequence.computed = sequence.length - 1  # all but the last sampled token have KV now
                verified.append((sequence.id, row.drafts, result.accepted))
            outputs.append((sequence, output))
        if self._drafting is not None:
            self._drafting.complete(verified)
        return [self._finish(*each) for each in outputs if self._is_accepted(*each)]

    def discard(self, batch: Batch) -> list[str]:
        """Drop the sequences of a failed batch, and evict the blocks that it should have filled.

        Return the ids of the sequences.
        """
        for sequence, row in zip(batch.sequences, batch.rows, strict=True):
            self._blocks.evict(sequence, row.start)
        for sequence in batch.sequences:
            self.abort(sequence.id)
        return [sequence.id for sequence in batch.sequences]

    def _is_accepted(self, sequence: Sequence, output: EngineOutput) -> bool:
        """Return whether the output may leave; if not, `poll_grammars` returns it later."""
        if sequence.grammar is None or sequence.grammar.wait_until_accepted():
            return True
        self._unaccepted[sequence.id] = output
        return False

    def _finish(self, sequence: Sequence, output: EngineOutput) -> tuple[str, Outcome]:
        """Return the outcome of a sequence, which is dropped if it has finished or failed."""
        self._unaccepted.pop(sequence.id, None)
        outcome = finish_output(sequence, output, self._max_model_len)
        if isinstance(outcome, FllmError) or outcome.finish_reason is not None:
            self.abort(sequence.id)
        return sequence.id, outcome

    def _is_late(self, sequence: Sequence) -> bool:
        """Return whether the sequence gets no row in this step, because it waits for its grammar."""
        grammar = sequence.grammar
        if grammar is None:
            return False
        if sequence.remaining == 1 and (sequence.id in self._starting or not grammar.is_mask_near()):
            return True
        return sequence.id in self._unaccepted

    def _admit(self) -> list[Sequence]:
        """Move waiting sequences to the running ones until one does not fit. Return those that may get a row.

        This must happen before the batch caches any block, since not all admitted sequences get a row in it.
        """
        admitted = []
        while len(self._running) < self._limits.max_num_seqs:
            sequence = self._waiting.first()
            if sequence is not None and self._begin_fetch(sequence):
                continue
            if sequence is None or not (self._fits_adapter(sequence) and self._allocate(sequence)):
                break
            self._waiting.pop()
            self._start_running(sequence)
            if not self._is_late(sequence):
                admitted.append(sequence)
        return admitted

    def _admit_newcomers(self) -> None:
        """Give each client a place in a full batch: the last one of the client that runs most."""
        while (
            (newcomer := self._find_newcomer()) and self._fits_adapter(newcomer) and self._allocate(newcomer)
        ):
            if (
                len(self._running) == self._limits.max_num_seqs
            ):  # else the place of one in the background is free
                last = self._background.last(self._running) or self._last_of_largest_client()
                self._preempt(last)
                self._waiting.add_first(last)
            self._start_running(self._waiting.take(newcomer))

    def _find_newcomer(self) -> Sequence | None:
        """Return a sequence that gets a place in a full batch: of a client that runs few, if one runs more.

        One in the background gives its place to any other.
        """
        size = self._limits.max_num_seqs
        if not self._waiting or len(self._running) < size:
            return None
        if self._background.last(self._running):
            return self._waiting.first_of_others(())
        running = Counter(sequence.client for sequence in self._running.values())
        few = min(max(int(size * CLIENT_SHARE), 1), max(running.values()) - 1)
        others = {client for client, count in running.items() if count >= few}
        return self._waiting.first_of_others(others) if few else None

    def _count_competing(self) -> int:
        """Return the number of sequences, without those in the background if there are others."""
        count = len(self._running) + len(self._waiting)
        return (count - len(self._background)) or count

    def _last_of_largest_client(self) -> Sequence:
        [(client, _)] = Counter(sequence.client for sequence in self._running.values()).most_common(1)
        return next(each for each in reversed(self._running.values()) if each.client == client)

    def _allocate(self, sequence: Sequence) -> bool:
        """Give a waiting sequence its first blocks, if need be those of sequences in the background."""
        while not self._blocks.allocate(sequence):
            if sequence.is_background or (last := self._background.last(self._running)) is None:
                return False
            self._preempt(last)
            self._waiting.add_first(last)
            self._preemptions += 1
        return True

    def _fits_adapter(self, sequence: Sequence) -> bool:
        """Return whether the sequence may run without more than ``max_loras`` different adapters."""
        if not sequence.adapter or self._limits.max_loras is None:
            return True
        adapters = {each.adapter for each in self._running.values() if each.adapter}
        return len(adapters | {sequence.adapter}) <= self._limits.max_loras

    def _append_blocks(self, sequence: Sequence) -> bool:
        """Give a running sequence blocks for all its tokens. Return False if it is preempted.

        If there are too few, sequences are preempted from the end, which may reach the sequence itself.
        """
        while sequence.id in self._running:
            if self._blocks.append(sequence):
                return True
            self._preempt_last()
        return False

    def _start_running(self, sequence: Sequence) -> None:
        sequence.slot = self._free_slots.pop()
        self._running[sequence.id] = sequence

    def _stop_running(self, sequence: Sequence) -> None:
        del self._running[sequence.id]
        self._free_slots.append(sequence.slot)

    def _recompute_longer(self) -> None:
        """Drop the KV of running sequences that have become long: all their tokens are computed again."""
        for sequence in self._running.values():
            if not sequence.is_long and self._exceeds_short_context(sequence.length):
                self._blocks.free(sequence)
                sequence.is_long, sequence.block_hashes = True, []
                self._drop_logprobs(sequence)

    def _exceeds_short_context(self, length: int) -> bool:
        return self._long_context_start is not None and length > self._long_context_start

    def _preempt_last(self) -> None:
        """Move the sequence that was admitted last back to the front of the queue, for its blocks.

        Those in the background are first to go.
        """
        sequence = self._background.last(self._running) or next(reversed(self._running.values()))
        self._preempt(sequence)
        self._waiting.add_preempted(sequence)
        self._preemptions += 1

    def _preempt(self, sequence: Sequence) -> None:
        self._stop_running(sequence)
        self._blocks.free(sequence)
        self._drop_logprobs(sequence)

    def _undo_token(self, sequence: Sequence) -> None:
        """Let the last computed token be computed again; a state can only be computed from the beginning."""
        if self._recurrent or sequence.computed <= sequence.first_row_end:
            sequence.computed = 0
            self._drop_logprobs(sequence)
        else:
            sequence.computed -= 1

    def _drop_logprobs(self, sequence: Sequence) -> None:
        """Drop log-probabilities that are computed again with their tokens."""
        if not sequence.started and sequence.id not in self._unaccepted:
            sequence.prompt_logprobs = []
        sequence.forced_logprobs = []

    def _begin_fetch(self, sequence: Sequence) -> bool:
        """Let a sequence wait for its blocks if only the disk has them. Others go on meanwhile."""
        if sequence.looked_up or len(self._fetching) >= self._limits.max_num_seqs:
            return False
        if not self._blocks.fetch(sequence):
            return False
        self._waiting.remove(sequence.id)
        self._fetching[sequence.id] = sequence
        return True

    def _end_fetches(self) -> None:
        """Move the sequences back to the queue whose blocks are there, or took too long."""
        for sequence in reversed(list(self._fetching.values())):
            if self._blocks.has_fetched(sequence):
                del self._fetching[sequence.id]
                self._waiting.add_first(sequence)

    def _prefill(self, sequences: list[Sequence], batch: Batch) -> None:
        """Add chunks of these sequences, which are in order of admission, while the budget lasts.

        Only a sequence that gets a row reuses blocks of the batch: if the batch fails, it is dropped as well.
        """
        foreground = [each for each in sequences if not each.is_background] if self._background else sequences
        whole = budget = self._prefill_budget.of_step(foreground or sequences, batch.token_budget)
        if foreground:
            budget = self._prefill_shortest(foreground, batch, budget)
        if len(foreground) == len(sequences):
            return
        if any(not each.is_background for each in self._running.values()):
            budget = min(budget, max(whole * BACKGROUND_PREFILL_SHARE, 1))
        if budget >= 1 or not foreground:
            self._prefill_shortest([each for each in sequences if each.is_background], batch, budget)

    def _prefill_shortest(self, sequences: list[Sequence], batch: Batch, budget: float) -> float:
        """Add chunks, that of the sequence with the fewest tokens left first; return what is left."""
        token_cost, oldest = self._limits.token_cost, sequences[0]
        reserved = max(OLDEST_PREFILL_SHARE * budget, token_cost(oldest.computed))
        for sequence in sorted(sequences, key=lambda each: each.remaining):
            if sequence is oldest:
                reserved = 0
            elif token_cost(sequence.computed) > budget - reserved:
                continue
            self._blocks.reuse_cached(sequence)
            self._blocks.restore(sequence)
            cost = token_cost(sequence.computed)
            limit = sequence.chunk_limit - (sequence.id in self._starting)
            together = sequence.first_row_end - sequence.computed
            count = max(min(int((budget - reserved) / cost), limit), together, 1)
            self._schedule_row(sequence, count, batch)
            budget -= count * cost
        return budget

    def _schedule_row(
        self, sequence: Sequence, count: int, batch: Batch, drafts: list[int] | None = None
    ) -> None:
        """Add a row that computes the sequence's next ``count`` tokens and verifies the drafts after them."""
        if sequence.queue_time is None:
            self._record_first_row(sequence)
        drafts = drafts or []
        start = sequence.computed
        ends = start + count == sequence.length
        sample = ends and finish_reason(sequence, self._max_model_len) is None
        grammar = sequence.grammar if sample else None
        if grammar is not None:
            grammar.begin_row()
        self._blocks.cache_full(sequence, start, start + count)
        batch.add(sequence, count, drafts, sample=sample)

    def _record_first_row(self, sequence: Sequence) -> None:
        sequence.queue_time = self._clock() - sequence.arrival_time
        sequence.cached_tokens = min(sequence.computed, sequence.prompt_length)
        if not sequence.needs_prompt_logprobs:
            self._prefix_queries += sequence.prompt_length
            self._prefix_hits += sequence.cached_tokens
