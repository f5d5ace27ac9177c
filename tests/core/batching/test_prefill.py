"""How a step's prefill budget is divided among sequences."""

from __future__ import annotations

from collections import defaultdict
from zlib import crc32

import pytest
from msgspec.structs import replace
from support.fake_runner import FakeRunner, expected_tokens

from fllm.batching.batch import Batch
from fllm.batching.block_pool import BlockPool
from fllm.batching.limits import BatchLimits
from fllm.batching.scheduler import Scheduler
from fllm.values import EngineOutput, GenerateRequest, SamplingParams

BLOCK = 4
LENGTH = 4000


class Harness:
    """A scheduler with a prefill budget. It keeps all steps and the tokens computed."""

    def __init__(self, budget: int | None = 16, *, seqs: int = 16, blocks: int = 3000) -> None:
        self.limits = BatchLimits(
            max_num_seqs=seqs, prefill_budget=budget, solo_prefill_budget=budget or 0, block_size=BLOCK
        )
        self.pool = BlockPool(blocks, BLOCK)
        self.runner = FakeRunner(blocks=blocks, block_size=BLOCK)
        self.now = 0.0
        self.scheduler = Scheduler(self.pool, self.limits, max_model_len=2 * LENGTH, clock=lambda: self.now)
        self.steps: dict[str, list[EngineOutput]] = defaultdict(list)
        self.computed: dict[str, list[int]] = defaultdict(list)

    def add(self, *requests: GenerateRequest) -> None:
        for each in requests:
            self.scheduler.add(each, seed=0, arrival_time=0.0)

    def step(self) -> list[tuple[str, int]]:
        """Run one step. Return each row's sequence and how many tokens it computed."""
        batch = self.scheduler.schedule()
        for request_id, step in self.scheduler.complete(batch, self.runner.execute(batch.rows)):
            self.steps[request_id].append(step)
        for sequence, row in zip(batch.sequences, batch.rows, strict=True):
            self.computed[sequence.id] += range(row.start, row.start + row.count)
        return counts(batch)

    def finish(self) -> None:
        while self.scheduler.busy:
            self.step()

    def tokens(self, request_id: str) -> list[int]:
        return [token for step in self.steps[request_id] for token in step.token_ids]


def counts(batch: Batch) -> list[tuple[str, int]]:
    return [(sequence.id, row.count) for sequence, row in zip(batch.sequences, batch.rows, strict=True)]


def request(name: str, length: int, *, token: int | None = None, max_tokens: int = 1) -> GenerateRequest:
    """Return a request whose tokens are all ``token``, or unique to its name."""
    ids = [crc32(name.encode()) if token is None else token] * length
    return GenerateRequest(name, ids, SamplingParams(max_tokens=max_tokens))


def test_a_short_prompt_is_computed_in_the_step_after_it_arrives():
    harness = Harness()
    harness.add(request("long", 400))
    assert harness.step() == [("long", 16)]
    harness.add(request("short", 9))
    [first, (second, _)] = harness.step()
    assert (first, second) == (("short", 9), "long")
    assert harness.tokens("short") == expected_tokens(request("short", 9), 0)


def test_the_fewest_tokens_left_go_first_and_ties_go_by_arrival():
    harness = Harness(40)
    harness.add(*[request(name, length) for name, length in (("a", 99), ("b", 9), ("c", 6), ("d", 9))])
    assert harness.step() == [("c", 6), ("b", 9), ("d", 9), ("a", 16)]


def test_tokens_that_are_done_or_cached_are_not_left():
    harness = Harness(16)
    harness.add(request("half done", 35, token=1))
    assert harness.step() + harness.step() == [("half done", 16), ("half done", 15)]
    harness.add(request("cached", 29, token=1), request("new", 5))
    assert harness.step() == [("cached", 1), ("half done", 4), ("new", 5)]


def test_the_oldest_has_a_quarter_and_what_others_leave():
    harness = Harness(16)
    harness.add(request("oldest", 300), request("b", 50), request("c", 60))
    assert harness.step() == [("b", 12), ("oldest", 4)]
    harness.scheduler.abort("b")
    harness.scheduler.abort("c")
    harness.add(request("d", 3))
    assert harness.step() == [("d", 3), ("oldest", 12)]  # the 13th would cost more than is left


def test_an_endless_stream_of_short_prompts_does_not_starve_long_ones():
    harness = Harness(16)
    harness.add(request("first", 100), request("second", 150))
    for count in range(200):
        harness.add(request(f"short {count}", 14))
        harness.step()
    assert harness.steps["first"][-1].finish_reason
    assert harness.steps["second"][-1].finish_reason


@pytest.mark.parametrize("budget", [7, 16, 48])
def test_a_step_keeps_within_its_budget_at_any_context(budget: int):
    harness = Harness(budget)
    harness.add(request("long", LENGTH), request("longer", LENGTH + 500))
    dearest = 0.0
    while harness.scheduler.busy:
        batch = harness.scheduler.schedule()
        chunks = [row for row in batch.rows if row.start < row.prompt_length - 1]
        dearest = max(dearest, sum(row.count * harness.limits.token_cost(row.start) for row in chunks))
        harness.scheduler.complete(batch, harness.runner.execute(batch.rows))
    assert budget - 1 <= dearest <= budget


def test_a_sequence_that_stays_alone_has_longer_chunks():
    harness = Harness()
    harness.limits = replace(harness.limits, solo_prefill_budget=64)
    harness.scheduler = Scheduler(
        harness.pool, harness.limits, max_model_len=LENGTH, clock=lambda: harness.now
    )
    harness.add(request("long", 2000))
    assert harness.step() == [("long", 64)]
    harness.add(request("short", 5))
    assert harness.step() == [("short", 5), ("long", 10)]
    assert harness.step() == [("long", 5)]  # a third of the budget, for others may come again
    harness.now += 2
    assert harness.step() == [("long", 61)]


def test_decoding_sequences_take_nothing_from_the_budget():
    harness = Harness(8)
    harness.add(*[request(name, 1, max_tokens=9) for name in "abc"])
    harness.step()
    harness.add(request("long", 100))
    assert harness.step() == [("a", 1), ("b", 1), ("c", 1), ("long", 2)]


def test_a_budget_too_small_for_one_token_computes_one():
    harness = Harness(1)
    harness.add(request("long", LENGTH // 2))
    while harness.scheduler.busy:
        assert harness.step() == [("long", 1)]


def test_every_token_is_computed_once():
    harness = Harness(10)
    asked = [request(f"{length}", length, max_tokens=4) for length in (90, 7, 55, 1, 23)]
    for each in asked:
        harness.add(each)
        harness.step()
    harness.finish()
    for each in asked:
        assert harness.computed[each.request_id] == list(range(len(each.token_ids) + 3))
        assert harness.tokens(each.request_id) == expected_tokens(each, 0)


def test_a_prompt_finds_what_others_computed_since_it_was_admitted():
    harness = Harness(16)
    alike = [request(name, 101, token=1) for name in "abc"]
    harness.add(*alike)
    assert harness.step() == [("a", 16)]
    harness.finish()
    assert sum(len(places) for places in harness.computed.values()) == 101 + 1 + 1
    assert [harness.steps[name][0].cached_tokens for name in "abc"] == [0, 100, 100]
    for each in alike:
        assert harness.tokens(each.request_id) == expected_tokens(each, 0)


def test_a_sequence_in_prefill_reuses_blocks_that_another_has_filled():
    harness = Harness(16)
    oldest = request("oldest", 102, token=1)
    harness.add(oldest, request("shorter", 90, token=1))
    assert harness.step() == [("shorter", 12), ("oldest", 3)]
    assert harness.computed["oldest"] == [12, 13, 14]
    harness.finish()
    computed = sum(len(places) for places in harness.computed.values())
    assert 102 <= computed < 130, "each token is computed once, except the first ones of blocks"
    assert harness.tokens("oldest") == expected_tokens(oldest, 0)
    assert harness.pool.num_free == harness.pool.num_blocks


def test_a_failed_step_does_not_affect_sequences_that_were_not_in_it():
    harness = Harness(16)
    alike = request("b", 21, token=1)
    harness.add(request("a", 20, token=1), alike)
    batch = harness.scheduler.schedule()
    assert counts(batch) == [("a", 16)]
    harness.scheduler.discard(batch)
    harness.finish()
    assert harness.computed["b"] == list(range(21))
    assert harness.tokens("b") == expected_tokens(alike, 0)


def test_an_abort_during_prefill_leaves_the_share_to_the_next():
    harness = Harness(16)
    harness.add(request("a", 200), request("b", 300))
    assert harness.step() == [("a", 16)]
    harness.scheduler.abort("a")
    assert harness.step() == [("b", 5)]  # a third: it is the only one now


def test_without_a_budget_a_step_takes_all_that_the_batch_has_room_for():
    harness = Harness(None)
    harness.add(request("long", LENGTH))
    assert [harness.step() for _ in range(7)] == [[("long", 512)]] * 7
