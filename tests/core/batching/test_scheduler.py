from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace
from support.fake_runner import FakeRunner, expected_tokens, logprob

from fllm.batching.batch import Batch
from fllm.batching.block_pool import BlockPool
from fllm.batching.limits import BatchLimits
from fllm.batching.runner import Sampled
from fllm.batching.scheduler import Scheduler
from fllm.errors import BackendError
from fllm.values import EngineOutput, GenerateRequest, SamplingParams

BLOCK = 4


class Harness:
    """A scheduler and a fake runner, stepped by hand, which record the outputs of all sequences."""

    def __init__(
        self,
        *,
        blocks: int = 64,
        seqs: int = 16,
        tokens: int = 64,
        budget: int | None = None,
        enable_caching: bool = True,
        eos: tuple[int, ...] = (),
        max_model_len: int = 1000,
        long_context_start: int | None = None,
        max_loras: int | None = None,
    ) -> None:
        self.time = 0.0
        self.pool = BlockPool(blocks, BLOCK, enable_caching=enable_caching)
        self.runner = FakeRunner(blocks=blocks, block_size=BLOCK, eos=eos)
        self.limits = BatchLimits(
            max_num_seqs=seqs,
            max_num_batched_tokens=tokens,
            prefill_budget=budget,
            block_size=BLOCK,
            max_loras=max_loras,
        )
        self.scheduler = Scheduler(
            self.pool,
            self.limits,
            max_model_len=max_model_len,
            long_context_start=long_context_start,
            eos_token_ids=eos,
            clock=lambda: self.time,
        )
        self.steps: dict[str, list[EngineOutput]] = {}

    def add(self, *requests: GenerateRequest) -> None:
        for request in requests:
            self.scheduler.add(request, seed=seed_of(request), arrival_time=self.time)
            self.steps[request.request_id] = []

    def step(self) -> Batch:
        batch = self.scheduler.schedule()
        for request_id, step in self.scheduler.complete(batch, self.runner.execute(batch.rows)):
            self.steps[request_id].append(step)
        return batch

    def run(self, *requests: GenerateRequest) -> None:
        self.add(*requests)
        while self.scheduler.busy:
            self.step()

    def tokens(self, request_id: str) -> list[int]:
        return [token for step in self.steps[request_id] for token in step.token_ids]

    @property
    def used(self) -> int:
        return self.scheduler.status().kv_blocks_used


def request(request_id: str, token_ids: list[int], *, group: str = "", **sampling: object) -> GenerateRequest:
    sampling = {"max_tokens": 6, **sampling}
    return GenerateRequest(request_id, token_ids, SamplingParams(**sampling), group)  # type: ignore[arg-type]


def seed_of(of: GenerateRequest) -> int:
    return of.sampling.seed or 0


def rows(batch: Batch) -> list[tuple[str, int, int]]:
    return [(s.id, row.start, row.count) for s, row in zip(batch.sequences, batch.rows, strict=True)]


MIXED = [
    request("short", [1, 2], max_tokens=20),
    request("long", list(range(11)) * 3, max_tokens=9),
    request("same", list(range(11)) * 3, max_tokens=9),
    request("seeded", list(range(11)) * 3, max_tokens=9, seed=7),
    request("begins alike", [*range(11), 0, 1, 2, 9, 9], max_tokens=15),
    request("full blocks", [4] * 2 * BLOCK, max_tokens=8),
    request("one token", [4], max_tokens=1),
]
SCHEDULES = [
    {"tokens": 64},
    {"tokens": 1},
    {"tokens": 5},
    {"tokens": 64, "seqs": 1},
    {"tokens": 7, "seqs": 3},
    {"tokens": 64, "blocks": 11},
    {"tokens": 3, "blocks": 12},
    {"tokens": 64, "blocks": 14},
    {"tokens": 64, "blocks": 20},
    {"tokens": 64, "budget": 1},
    {"tokens": 64, "budget": 5, "blocks": 14},
]


@pytest.mark.parametrize("enable_caching", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_neither_other_sequences_nor_the_schedule_change_an_output(
    schedule: dict[str, int], enable_caching: bool
):
    harness = Harness(**schedule, enable_caching=enable_caching)
    harness.run(*MIXED)
    harness.run(
        *[request(f"again {p.request_id}", p.token_ids, max_tokens=p.sampling.max_tokens) for p in MIXED]
    )
    for each in MIXED:
        assert harness.tokens(each.request_id) == expected_tokens(each, seed_of(each))
        assert harness.tokens(f"again {each.request_id}") == expected_tokens(each, 0)
    assert harness.used == 0


def test_small_pools_do_preempt():
    harness = Harness(blocks=11)
    harness.run(*MIXED)
    assert harness.scheduler.status().preemptions > 0


def test_a_step_decodes_running_sequences_and_prefills_waiting_ones():
    harness = Harness(tokens=10)
    harness.add(request("a", [1, 2, 3]))
    assert rows(harness.step()) == [("a", 0, 3)]
    harness.add(request("b", [5] * 13), request("c", [6]))
    assert rows(harness.step()) == [("a", 3, 1), ("c", 0, 1), ("b", 0, 8)]
    assert rows(harness.step()) == [("a", 4, 1), ("c", 1, 1), ("b", 8, 5)]
    assert rows(harness.step()) == [("a", 5, 1), ("b", 13, 1), ("c", 2, 1)]


def test_no_more_sequences_run_than_allowed():
    harness = Harness(seqs=2)
    harness.add(*[request(name, [1]) for name in "abc"])
    harness.step()
    status = harness.scheduler.status()
    assert (status.running, status.waiting) == (2, 1)


def test_a_prompt_that_does_not_fit_waits_and_is_not_overtaken():
    harness = Harness(blocks=4)
    harness.add(request("a", [1] * 9, max_tokens=3), request("b", [2] * 5), request("c", [3]))
    assert rows(harness.step()) == [("a", 0, 9)]
    assert rows(harness.step()) == [("a", 9, 1)]
    assert rows(harness.step()) == [("a", 10, 1)]
    assert rows(harness.step()) == [("c", 0, 1), ("b", 0, 5)]


def test_the_latest_arrival_is_preempted_and_resumes_before_all_waiting_ones():
    harness = Harness(blocks=4, seqs=2)
    harness.add(*[request(name, [token] * 7, max_tokens=4) for token, name in enumerate("abc")])
    first = harness.step()
    assert rows(first) == [("a", 0, 7), ("b", 0, 7)]
    harness.step()
    assert rows(harness.step()) == [("a", 8, 1)]  # it needs a third block, and gets b's
    assert (harness.scheduler.status().preemptions, harness.scheduler.status().running) == (1, 1)
    assert rows(harness.step()) == [("a", 9, 1)]
    assert rows(harness.step())[0][0] == "b"


def test_a_client_that_runs_nothing_gets_a_place_in_a_full_batch():
    harness = Harness(seqs=3)
    many = [request_of("a", f"a{i}", [1, i], max_tokens=9) for i in range(4)]
    others = [request_of(client, client, [2], max_tokens=2) for client in "bcd"]
    harness.add(*many)
    assert ids(harness.step()) == ["a0", "a1", "a2"]
    harness.step()
    harness.add(*others)
    assert ids(harness.step()) == ["a0", "b", "c"]  # d would take the last place of another client
    assert ids(harness.step()) == ["a0", "b", "c"]
    assert ids(harness.step()) == ["a0", "d", "a1"]
    while harness.scheduler.busy:
        harness.step()
    for each in (*many, *others):
        assert harness.tokens(each.request_id) == expected_tokens(each, 0)
    assert harness.scheduler.status().preemptions == 0  # those for lack of blocks
    assert harness.used == 0


def test_a_client_gets_its_share_of_a_full_batch_and_no_more():
    harness = Harness(seqs=16)
    harness.add(*[request_of("a", f"a{i}", [1], max_tokens=9) for i in range(20)])
    harness.step()
    harness.add(*[request_of("b", f"b{i}", [2], max_tokens=9) for i in range(9)])
    assert sorted(ids(harness.step())) == sorted([*(f"a{i}" for i in range(14)), "b0", "b1"])


def test_no_place_is_taken_for_a_client_whose_prompt_does_not_fit():
    harness = Harness(seqs=2, blocks=4)
    harness.add(*[request_of("a", name, [1]) for name in ("a0", "a1")])
    harness.step()
    harness.add(request_of("b", "b", [2] * 15, max_tokens=1))
    assert ids(harness.step()) == ["a0", "a1"]


def request_of(client: str, request_id: str, token_ids: list[int], **sampling: object) -> GenerateRequest:
    return replace(request(request_id, token_ids, **sampling), client=client)


def ids(batch: Batch) -> list[str]:
    return [sequence.id for sequence in batch.sequences]


def test_a_preempted_sequence_finds_its_blocks_in_the_cache():
    harness = Harness(blocks=5)
    harness.add(request("a", [1] * 7, max_tokens=3), request("b", [2] * 11, max_tokens=5))
    harness.step()
    harness.step()
    assert rows(harness.step()) == [("a", 8, 1)]
    assert rows(harness.step()) == [("b", 8, 5)]
    assert harness.scheduler.status().preemptions == 1


def test_a_preempted_sequence_returns_the_fields_of_its_first_output_only_once():
    harness = Harness(blocks=4)
    long = [request(name, [token] * 7, max_tokens=8, prompt_logprobs=0) for token, name in enumerate("ab")]
    harness.run(*long)
    assert harness.scheduler.status().preemptions > 0
    for each in long:
        assert [step.prompt_logprobs is not None for step in harness.steps[each.request_id]] == [True] + [
            False
        ] * 7


def test_sequences_of_one_request_share_the_blocks_of_their_prompt_in_the_very_first_step():
    for enable_caching in (True, False):
        harness = Harness(enable_caching=enable_caching)
        harness.add(*[request(f"r{i}", [1] * 17, group="r", seed=i) for i in range(4)])
        assert rows(harness.step()) == [("r0", 0, 17)] + [(f"r{i}", 16, 1) for i in range(1, 4)]
        assert harness.used == 4 + 4


@pytest.mark.parametrize(
    ("salt", "cached"), [("a", 8), ("b", 0), ("", 0)], ids=["the same", "another", "none"]
)
def test_requests_share_blocks_only_with_the_same_salt(salt: str, cached: int):
    harness = Harness()
    harness.run(replace(request("a", [1] * 9), cache_salt="a"))
    harness.run(replace(request("b", [1] * 9), cache_salt=salt))
    assert harness.steps["b"][0].cached_tokens == cached


@pytest.mark.parametrize(("shared", "cached"), [(0, 0), (3, 0), (4, 4), (7, 4), (8, 8), (12, 12)], ids=str)
def test_full_blocks_of_shared_tokens_ignore_the_salt(shared: int, cached: int):
    harness = Harness()
    for salt in ("a", "b"):
        harness.run(replace(request(salt, [1] * 14), cache_salt=salt, shared_tokens=shared))
    assert harness.steps["b"][0].cached_tokens == cached


def test_blocks_after_shared_ones_are_found_only_with_the_same_salt():
    harness = Harness()
    prompts = {"a": "a", "again": "a", "b": "b", "unsalted": ""}
    for name, salt in prompts.items():
        harness.run(replace(request(name, [1] * 14), cache_salt=salt, shared_tokens=4))
    cached = [harness.steps[name][0].cached_tokens for name in prompts]
    assert cached == [0, 12, 4, 4]


def test_a_preempted_sequence_stays_in_its_namespace():
    harness = Harness(blocks=5)
    first = replace(request("a", [1] * 7, max_tokens=3), cache_salt="a")
    second = replace(request("b", [2] * 11, max_tokens=5), cache_salt="b")
    harness.run(first, second)
    assert harness.scheduler.status().preemptions
    harness.run(replace(request("again", [2] * 11, max_tokens=1), cache_salt="b"))
    harness.run(replace(request("other", [2] * 11, max_tokens=1), cache_salt="a"))
    assert [harness.steps[name][0].cached_tokens for name in ("again", "other")] == [8, 0]


@pytest.mark.parametrize(("n", "cached"), [("1", 8), ("2", 8)])
def test_sequences_of_one_request_share_blocks_with_a_salt(n: str, cached: int):
    harness = Harness()
    harness.run(*[replace(request(name, [1] * 9, group="g"), cache_salt="a") for name in ("0", "1", "2")])
    assert harness.steps[n][0].cached_tokens == cached


def test_without_prefix_caching_requests_share_nothing():
    harness = Harness(enable_caching=False)
    harness.add(request("a", [1] * 17, group="a"), request("b", [1] * 17))
    harness.step()
    assert harness.used == 5 + 5


@pytest.mark.parametrize(("enable_caching", "cached"), [(True, 16), (False, 0)])
def test_a_later_request_finds_the_prompt_only_in_a_cache_that_retains_it(enable_caching: bool, cached: int):
    harness = Harness(enable_caching=enable_caching)
    harness.run(request("a", [1] * 17, group="r"))
    harness.run(request("b", [1] * 17, group="r"))
    assert harness.steps["a"][0].cached_tokens == 0
    assert harness.steps["b"][0].cached_tokens == cached
    assert harness.scheduler.status().prefix_hits == cached
    assert harness.scheduler.status().prefix_queries == 34


def test_outputs_are_cached_as_well_as_prompts():
    harness = Harness()
    harness.run(request("a", [1] * 5, max_tokens=11))
    harness.run(request("b", [1] * 5 + harness.tokens("a")))
    assert harness.steps["b"][0].cached_tokens == 12


def test_the_last_token_of_a_prompt_is_computed_even_if_its_block_is_cached():
    harness = Harness()
    harness.run(request("a", [1] * 8))
    harness.add(request("b", [1] * 8))
    assert rows(harness.step()) == [("b", 4, 4)]
    harness.run()
    assert harness.tokens("b") == harness.tokens("a")


@pytest.mark.parametrize("tokens", [64, 3])
def test_prompt_logprobs_come_for_every_token_even_of_a_cached_prompt(tokens: int):
    harness = Harness(tokens=tokens)
    ids = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    harness.run(request("a", ids))
    harness.run(request("b", ids, prompt_logprobs=0))
    expected = [None] + [logprob(ids[:place], ids[place]) for place in range(1, len(ids))]
    assert harness.steps["b"][0].prompt_logprobs == expected
    assert harness.steps["b"][0].cached_tokens == 0
    assert harness.steps["a"][0].prompt_logprobs is None


def test_a_preemption_during_prefill_does_not_change_the_first_output():
    for wanted in (None, 0):
        harness = Harness(blocks=6, tokens=3)
        harness.add(
            request("a", [1] * 3, max_tokens=7), request("b", [2] * 14, max_tokens=2, prompt_logprobs=wanted)
        )
        while not harness.scheduler.status().preemptions:
            harness.time += 1
            harness.step()
        assert harness.steps["b"] == []
        harness.run()
        logprobs = [None] + [logprob([2] * place, 2) for place in range(1, 14)]
        first = harness.steps["b"][0]
        assert first.prompt_logprobs == (None if wanted is None else logprobs)
        assert (first.cached_tokens, first.queue_time) == (0, 2.0)
        assert harness.scheduler.status().prefix_queries == (17 if wanted is None else 3)


def test_prompt_logprobs_given_once_are_not_computed_again_after_a_preemption():
    harness = Harness(blocks=5)
    asked = request("b", [2] * 11, max_tokens=5, prompt_logprobs=0)
    harness.add(request("a", [1] * 7, max_tokens=3), asked)
    harness.step()
    harness.step()
    harness.step()
    [row] = harness.step().rows
    assert (row.start, row.prompt_logprobs) == (8, False)
    harness.run()
    assert harness.tokens("b") == expected_tokens(asked, 0)


def test_logprobs_come_with_each_token_if_requested():
    harness = Harness()
    harness.run(request("a", [1, 2], logprobs=0), request("b", [1, 2]))
    context = [1, 2]
    for step in harness.steps["a"]:
        assert step.logprobs == [logprob(context, step.token_ids[0])]
        context += step.token_ids
    assert [step.logprobs for step in harness.steps["b"]] == [None] * 6


def test_the_first_output_has_the_queue_time():
    harness = Harness(seqs=1)
    harness.add(request("a", [1], max_tokens=2), request("b", [1], max_tokens=2))
    while harness.scheduler.busy:
        harness.time += 1
        harness.step()
    assert [step.queue_time for step in harness.steps["b"]] == [3.0, 0.0]


STOP = expected_tokens(request("a", [1, 2]), 0)[2]
"""The third token of the output for ``[1, 2]``; the first and the second are others."""


@pytest.mark.parametrize(
    ("eos", "sampling", "length", "finish", "stop_token"),
    [
        ((), {}, 6, "length", None),
        ((STOP,), {}, 3, "stop", STOP),
        ((STOP,), {"ignore_eos": True}, 6, "length", None),
        ((), {"stop_token_ids": (STOP,)}, 3, "stop", STOP),
        ((STOP,), {"stop_token_ids": (STOP,), "ignore_eos": True}, 3, "stop", STOP),
        ((STOP,), {"min_tokens": 2}, 3, "stop", STOP),
        ((STOP,), {"min_tokens": 6}, 6, "length", None),
        ((STOP,), {"max_tokens": 3}, 3, "stop", STOP),
        ((STOP,), {"max_tokens": 2}, 2, "length", None),
    ],
)
def test_why_a_sequence_ends(
    eos: tuple[int, ...], sampling: dict[str, object], length: int, finish: str, stop_token: int | None
):
    harness = Harness(eos=eos)
    asked = request("a", [1, 2], **sampling)
    harness.run(asked)
    last = harness.steps["a"][-1]
    assert harness.tokens("a") == expected_tokens(asked, 0, eos=eos)
    assert (len(harness.tokens("a")), last.finish_reason, last.stop_token) == (length, finish, stop_token)
    assert [step.finish_reason for step in harness.steps["a"][:-1]] == [None] * (length - 1)


def test_a_stop_token_before_min_tokens_does_not_end_a_sequence():
    harness = Harness(eos=(5,))
    harness.add(request("a", [1, 2], min_tokens=2))
    finishes = []
    for _ in range(3):  # a runner that fails to ban the token
        batch = harness.scheduler.schedule()
        [(_, step)] = harness.scheduler.complete(batch, [Sampled(token_id=5)])
        finishes.append(step.finish_reason)
    assert finishes == [None, None, "stop"]


def test_the_context_ends_a_sequence():
    harness = Harness(max_model_len=10)
    harness.run(request("a", [1] * 7, max_tokens=100))
    assert len(harness.tokens("a")) == 3
    assert harness.steps["a"][-1].finish_reason == "length"


def test_a_sequence_alone_may_fill_all_blocks():
    harness = Harness(blocks=3)
    harness.run(request("a", [1] * 7, max_tokens=100))
    assert len(harness.tokens("a")) == 5
    assert harness.scheduler.status().preemptions == 0


@pytest.mark.parametrize("tokens", [64, 2])
def test_max_tokens_0_runs_the_prompt_only(tokens: int):
    harness = Harness(tokens=tokens)
    harness.run(request("a", [1, 2, 3], max_tokens=0, prompt_logprobs=0))
    [step] = harness.steps["a"]
    assert (step.token_ids, step.finish_reason) == ([], "length")
    assert step.prompt_logprobs == [None, logprob([1], 2), logprob([1, 2], 3)]
    assert not any(row.sample for batch in harness.runner.batches for row in batch)


def test_an_abort_frees_the_blocks_at_once():
    harness = Harness(seqs=1)
    harness.add(request("runs", [1] * 9), request("waits", [2] * 9))
    harness.step()
    harness.scheduler.abort("runs")
    harness.scheduler.abort("waits")
    harness.scheduler.abort("never was")
    assert harness.used == 0
    assert not harness.scheduler.busy


def test_an_abort_keeps_blocks_that_other_sequences_share():
    harness = Harness()
    asked = request("b", [1] * 9)
    harness.add(request("a", [1] * 9), asked)
    harness.step()
    harness.scheduler.abort("a")
    harness.run(request("c", [3] * 40))
    assert harness.tokens("b") == expected_tokens(asked, 0)


def test_what_a_failed_batch_would_have_computed_is_not_found_in_the_cache():
    harness = Harness(tokens=12)
    harness.run(request("before", [1] * 4, max_tokens=1))
    harness.add(request("a", [1] * 15))
    batch = harness.scheduler.schedule()
    assert rows(batch) == [("a", 4, 11)]
    assert harness.scheduler.discard(batch) == ["a"]
    assert harness.used == 0
    asked = request("b", [1] * 15)
    harness.run(asked)
    assert harness.steps["b"][0].cached_tokens == 4
    assert harness.tokens("b") == expected_tokens(asked, 0)


def test_a_missing_token_or_row_of_the_runner_is_an_error():
    for results, error in (([Sampled()], BackendError), ([], ValueError)):
        harness = Harness()
        harness.add(request("a", [1]))
        batch = harness.scheduler.schedule()
        with pytest.raises(error):
            harness.scheduler.complete(batch, results)


def test_batches_respect_both_limits():
    for seqs, tokens in itertools.product((1, 3, 16), (1, 5, 64)):
        harness = Harness(seqs=seqs, tokens=tokens, blocks=16)
        harness.run(*MIXED)
        assert max(len(batch) for batch in harness.runner.batches) <= seqs
        assert max(sum(row.count for row in batch) for batch in harness.runner.batches) <= tokens


def test_a_sequence_that_becomes_long_is_computed_again_once():
    harness = Harness(long_context_start=10)
    harness.add(request("a", list(range(8)), max_tokens=5))
    steps = [rows(harness.step()) for _ in range(5)]
    assert steps == [[("a", 0, 8)], [("a", 8, 1)], [("a", 9, 1)], [("a", 0, 11)], [("a", 11, 1)]]
    assert harness.tokens("a") == expected_tokens(request("a", list(range(8)), max_tokens=5), 0)
    assert harness.used == 0


def test_tokens_that_a_grammar_forces_during_the_prompt_make_it_long_without_logprobs_twice():
    prompt = list(range(9))
    harness = Harness(long_context_start=10, tokens=4)
    harness.add(request("a", prompt, max_tokens=5, prompt_logprobs=0))
    harness.step()
    sequence = harness.scheduler._running["a"]
    sequence.token_ids += [1, 2, 3]  # as `append_forced` does
    while not harness.steps["a"]:
        harness.step()
    assert harness.steps["a"][0].prompt_logprobs == [
        None,
        *(logprob(prompt[:end], prompt[end]) for end in range(1, 9)),
    ]


def test_long_and_short_sequences_share_no_blocks_and_long_ones_share_theirs():
    harness = Harness(long_context_start=10)
    harness.run(request("short", list(range(8)), max_tokens=1))
    harness.add(request("long", list(range(11)), max_tokens=1))
    assert rows(harness.step()) == [("long", 0, 11)]
    harness.add(
        request("longer", list(range(12)), max_tokens=1), request("same", list(range(9)), max_tokens=1)
    )
    assert rows(harness.step()) == [("same", 8, 1), ("longer", 8, 4)]


def test_no_more_adapters_than_allowed_run_at_once():
    def with_adapter(request_id: str, adapter: int) -> GenerateRequest:
        sampling = SamplingParams(max_tokens=3)
        return GenerateRequest(request_id, [1, 2, 3], sampling, adapter=adapter, client=request_id)

    harness = Harness(max_loras=2)
    harness.add(*(with_adapter(f"{adapter} {i}", adapter) for i in range(3) for adapter in range(5)))
    seen = set()
    while harness.scheduler.busy:
        adapters = {row.adapter for row in harness.step().rows} - {0}
        assert len(adapters) <= 2
        seen |= adapters
    assert seen == {1, 2, 3, 4}
    assert all(len(harness.tokens(each)) == 3 for each in harness.steps)


def test_adapters_do_not_share_blocks():
    harness = Harness()
    prompt = list(range(3 * BLOCK + 1))
    sampling = SamplingParams(max_tokens=1)
    for number, (adapter, cached) in enumerate([(0, 0), (1, 0), (2, 0), (1, 12), (0, 12), (3, 0)]):
        harness.run(GenerateRequest(f"r{number}", prompt, sampling, adapter=adapter, shared_tokens=2 * BLOCK))
        assert harness.steps[f"r{number}"][0].cached_tokens == cached
