"""Add, step, abort and fail in any order, with drafts: outputs stay right, and no block is lost."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.drafting import always_drafting
from support.fake_runner import FakeRunner, Oracle, expected_tokens, logprob

from fllm.batching.batch import Batch
from fllm.batching.block_pool import BlockPool
from fllm.batching.kv_offload import KVOffload
from fllm.batching.limits import BatchLimits
from fllm.batching.scheduler import Scheduler
from fllm.batching.sequence import Sequence
from fllm.values import BACKGROUND_PRIORITY, EngineOutput, GenerateRequest, SamplingParams

MAX_MODEL_LEN = 24
EOS = (0,)

token_ids = st.lists(st.integers(1, 2), min_size=1, max_size=MAX_MODEL_LEN - 1)
samplings = st.builds(
    SamplingParams,
    max_tokens=st.integers(0, 12),
    min_tokens=st.integers(0, 4),
    seed=st.integers(0, 1),
    ignore_eos=st.booleans(),
    stop_token_ids=st.sampled_from([(), (3,)]),
    prompt_logprobs=st.sampled_from([None, 0]),
)


class SchedulerMachine(RuleBasedStateMachine):
    runner_type = FakeRunner
    recurrent = False
    long_context_start: int | None = None

    @initialize(
        blocks=st.integers(4, 20),
        block_size=st.sampled_from([2, 4, 6]),
        seqs=st.integers(1, 6),
        tokens=st.integers(1, 30),
        budget=st.none() | st.integers(1, 30),
        enable_caching=st.booleans(),
        drafting=st.integers(1, 6),
        rights=st.lists(st.booleans(), max_size=8),
    )
    def begin(
        self,
        blocks: int,
        block_size: int,
        seqs: int,
        tokens: int,
        budget: int | None,
        enable_caching: bool,
        drafting: int,
        rights: list[bool],
    ) -> None:
        self.max_model_len = min(MAX_MODEL_LEN, blocks * block_size)
        self.pool = BlockPool(
            blocks, block_size, enable_caching=enable_caching, share_blocks=not self.recurrent
        )
        self.runner = self.runner_type(blocks=blocks, block_size=block_size, eos=EOS)
        self.limits = BatchLimits(
            max_num_seqs=seqs,
            max_num_batched_tokens=tokens,
            prefill_budget=budget,
            block_size=block_size,
            max_drafting_seqs=drafting,
        )
        self.scheduler = Scheduler(
            self.pool,
            self.limits,
            max_model_len=MAX_MODEL_LEN,
            eos_token_ids=EOS,
            drafting=always_drafting(Oracle(rights)) if rights and not self.recurrent else None,
            recurrent=self.recurrent,
            long_context_start=self.long_context_start,
            offload=self.make_offload(),
        )
        self.requests: dict[str, GenerateRequest] = {}
        self.outputs: dict[str, list[int]] = {}
        self.count = 0

    def make_offload(self) -> KVOffload | None:
        """Return the tiers below the KV cache: none."""
        return None

    def schedule(self) -> Batch:
        """Return the next batch."""
        return self.scheduler.schedule()

    @rule(token_ids=token_ids, sampling=samplings, n=st.integers(1, 3), client=st.sampled_from("abcB"))
    def add(self, token_ids: list[int], sampling: SamplingParams, n: int, client: str) -> None:
        priority = BACKGROUND_PRIORITY if client == "B" else 0
        self.count += 1
        for index in range(n):
            request_id = f"{self.count}-{index}"
            ids = token_ids[: self.max_model_len - 1]
            request = GenerateRequest(
                request_id, ids, sampling, group=str(self.count), client=client.lower(), priority=priority
            )
            self.scheduler.add(request, seed=sampling.seed or 0, arrival_time=0.0)
            self.requests[request_id] = request
            self.outputs[request_id] = []

    @precondition(lambda self: self.scheduler.busy)
    @rule()
    def step(self) -> None:
        batch = self.schedule()
        assert batch.rows, "every step advances a sequence"
        assert sum(row.count for row in batch.rows) <= self.limits.max_num_batched_tokens
        for request_id, step in self.scheduler.complete(batch, self.runner.execute(batch.rows)):
            self.check_prompt_logprobs(request_id, step)
            self.outputs[request_id] += step.token_ids
            if step.finish_reason is not None:
                self.check_answer(request_id)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.requests)))
        self.scheduler.abort(request_id)
        del self.requests[request_id]

    @precondition(lambda self: self.scheduler.busy)
    @rule()
    def fail(self) -> None:
        for request_id in self.scheduler.discard(self.schedule()):
            del self.requests[request_id]

    @invariant()
    def blocks_are_held_exactly_by_the_tables_of_those_who_run(self) -> None:
        held = Counter(block for sequence in self.sequences("_running") for block in sequence.block_table)
        assert held == Counter({b: n for b, n in enumerate(self.pool._ref_counts) if n})
        assert self.pool.num_free == self.pool.num_blocks - len(held)
        assert not any(sequence.block_table or sequence.computed for sequence in self.sequences("_waiting"))

    @invariant()
    def free_blocks_are_listed_once_and_only_findable_ones_are_idle(self) -> None:
        listed = [*self.pool._empty, *self.pool._cached]
        assert len(listed) == len(set(listed))
        assert not any(self.pool._ref_counts[block] for block in listed)
        assert set(self.pool._hash_of).isdisjoint(self.pool._empty)
        assert set(self.pool._cached) <= set(self.pool._hash_of)
        assert {block: digest for digest, block in self.pool._block_of.items()} == self.pool._hash_of

    @invariant()
    def block_tables_lead_to_the_sequences_own_tokens(self) -> None:
        for sequence in self.sequences("_running"):
            computed = sequence.computed
            assert self.runner.read(sequence.block_table, computed) == sequence.token_ids[:computed]

    def sequences(self, queue: str) -> list[Sequence]:
        if queue == "_waiting":
            waiting = self.scheduler._waiting
            return [*waiting._foreground._sequences.values(), *waiting._background._sequences.values()]
        return list(getattr(self.scheduler, queue).values())

    def check_answer(self, request_id: str) -> None:
        request = self.requests.pop(request_id)
        seed = request.sampling.seed or 0
        expected = expected_tokens(request, seed, eos=EOS, max_model_len=self.max_model_len)
        assert self.outputs[request_id] == expected

    def check_prompt_logprobs(self, request_id: str, step: EngineOutput) -> None:
        request = self.requests[request_id]
        ids = request.token_ids
        expected = [None] + [logprob(ids[:place], ids[place]) for place in range(1, len(ids))]
        owed = request.sampling.prompt_logprobs is not None and not self.outputs[request_id]
        assert step.prompt_logprobs == (expected if owed else None)

    def teardown(self) -> None:
        while self.scheduler.busy:
            self.step()
        assert not self.requests
        assert self.pool.num_free == self.pool.num_blocks


SchedulerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestScheduler = SchedulerMachine.TestCase
