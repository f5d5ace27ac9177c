"""How a step's prefill is shared out among the sequences whose prompts are not computed yet."""

from __future__ import annotations

from collections import defaultdict
from zlib import crc32

import pytest
from msgspec.structs import replace
from support.fake_runner import FakeRunner, answer

from fllm.batching.block_pool import BlockPool
from fllm.batching.limits import BatchLimits
from fllm.batching.scheduler import Batch, Scheduler
from fllm.values import EngineOutput, GenerateRequest, SamplingParams

BLOCK = 4
LENGTH = 4000


class Bench:
    """A scheduler whose steps spend so much on prefill; it keeps all steps and the tokens computed."""

    def __init__(self, budget: int | None = 16, *, seqs: int = 16, blocks: int = 3000) -> None:
        self.limits = BatchLimits(
            max_num_seqs=seqs, prefill_budget=budget, lone_prefill_budget=budget or 0, block_size=BLOCK
        )
        self.pool = BlockPool(blocks, BLOCK)
        self.runner = FakeRunner(blocks=blocks, block_size=BLOCK)
        self.now = 0.0
        self.scheduler = Scheduler(self.pool, self.limits, max_model_len=2 * LENGTH, clock=lambda: self.now)
        self.steps: dict[str, list[EngineOutput]] = defaultdict(list)
        self.computed: dict[str, list[int]] = defaultdict(list)

    def add(self, *prompts: GenerateRequest) -> None:
        for each in prompts:
            self.scheduler.add(each, seed=0, arrived=0.0)

    def step(self) -> list[tuple[str, int]]:
        """Run one; gives each row's sequence and how many tokens it computed."""
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


def prompt(name: str, length: int, *, token: int | None = None, max_tokens: int = 1) -> GenerateRequest:
    """Its tokens are ``token``, or such that no other prompt begins alike."""
    ids = [crc32(name.encode()) if token is None else token] * length
    return GenerateRequest(name, ids, SamplingParams(max_tokens=max_tokens))


def test_a_short_prompt_is_computed_in_the_step_after_it_arrives():
    bench = Bench()
    bench.add(prompt("long", 400))
    assert bench.step() == [("long", 16)]
    bench.add(prompt("short", 9))
    [first, (second, _)] = bench.step()
    assert (first, second) == (("short", 9), "long")
    assert bench.tokens("short") == answer(prompt("short", 9), 0)


def test_the_fewest_tokens_left_go_first_and_ties_go_by_arrival():
    bench = Bench(40)
    bench.add(*[prompt(name, length) for name, length in (("a", 99), ("b", 9), ("c", 6), ("d", 9))])
    assert bench.step() == [("c", 6), ("b", 9), ("d", 9), ("a", 16)]


def test_tokens_that_are_done_or_cached_are_not_left():
    bench = Bench(16)
    bench.add(prompt("half done", 35, token=1))
    assert bench.step() + bench.step() == [("half done", 16), ("half done", 15)]
    bench.add(prompt("cached", 29, token=1), prompt("new", 5))
    assert bench.step() == [("cached", 1), ("half done", 4), ("new", 5)]


def test_the_eldest_has_a_quarter_and_what_others_leave():
    bench = Bench(16)
    bench.add(prompt("eldest", 300), prompt("b", 50), prompt("c", 60))
    assert bench.step() == [("b", 12), ("eldest", 4)]
    bench.scheduler.abort("b")
    bench.scheduler.abort("c")
    bench.add(prompt("d", 3))
    assert bench.step() == [("d", 3), ("eldest", 12)]  # the 13th would cost more than is left


def test_an_endless_stream_of_short_prompts_starves_nobody():
    bench = Bench(16)
    bench.add(prompt("first", 100), prompt("second", 150))
    for count in range(200):
        bench.add(prompt(f"short {count}", 14))
        bench.step()
    assert bench.steps["first"][-1].finish_reason
    assert bench.steps["second"][-1].finish_reason


@pytest.mark.parametrize("budget", [7, 16, 48])
def test_a_step_keeps_within_its_budget_at_any_context(budget: int):
    bench = Bench(budget)
    bench.add(prompt("long", LENGTH), prompt("longer", LENGTH + 500))
    dearest = 0.0
    while bench.scheduler.busy:
        batch = bench.scheduler.schedule()
        chunks = [row for row in batch.rows if row.start < row.prompt_length - 1]
        dearest = max(dearest, sum(row.count * bench.limits.price(row.start) for row in chunks))
        bench.scheduler.complete(batch, bench.runner.execute(batch.rows))
    assert budget - 1 <= dearest <= budget


def test_a_sequence_that_stays_alone_has_longer_chunks():
    bench = Bench()
    bench.limits = replace(bench.limits, lone_prefill_budget=64)
    bench.scheduler = Scheduler(bench.pool, bench.limits, max_model_len=LENGTH, clock=lambda: bench.now)
    bench.add(prompt("long", 2000))
    assert bench.step() == [("long", 64)]
    bench.add(prompt("short", 5))
    assert bench.step() == [("short", 5), ("long", 10)]
    assert bench.step() == [("long", 4)]  # a third of the budget, for others may come again
    bench.now += 2
    assert bench.step() == [("long", 58)]


def test_those_who_decode_take_nothing_from_the_budget():
    bench = Bench(8)
    bench.add(*[prompt(name, 1, max_tokens=9) for name in "abc"])
    bench.step()
    bench.add(prompt("long", 100))
    assert bench.step() == [("a", 1), ("b", 1), ("c", 1), ("long", 2)]


def test_a_budget_too_small_for_one_token_computes_one():
    bench = Bench(1)
    bench.add(prompt("long", LENGTH // 2))
    while bench.scheduler.busy:
        assert bench.step() == [("long", 1)]


def test_every_token_is_computed_once():
    bench = Bench(10)
    asked = [prompt(f"{length}", length, max_tokens=4) for length in (90, 7, 55, 1, 23)]
    for each in asked:
        bench.add(each)
        bench.step()
    bench.finish()
    for each in asked:
        assert bench.computed[each.request_id] == list(range(len(each.token_ids) + 3))
        assert bench.tokens(each.request_id) == answer(each, 0)


def test_a_prompt_finds_what_others_computed_since_it_was_admitted():
    bench = Bench(16)
    alike = [prompt(name, 101, token=1) for name in "abc"]
    bench.add(*alike)
    assert bench.step() == [("a", 16)]
    bench.finish()
    assert sum(len(places) for places in bench.computed.values()) == 101 + 1 + 1
    assert [bench.steps[name][0].cached_tokens for name in "abc"] == [0, 100, 100]
    for each in alike:
        assert bench.tokens(each.request_id) == answer(each, 0)


def test_one_in_the_midst_of_its_prefill_takes_over_what_another_has_filled():
    bench = Bench(16)
    eldest = prompt("eldest", 102, token=1)
    bench.add(eldest, prompt("shorter", 90, token=1))
    assert bench.step() == [("shorter", 12), ("eldest", 3)]
    assert bench.computed["eldest"] == [12, 13, 14]
    bench.finish()
    computed = sum(len(places) for places in bench.computed.values())
    assert 102 <= computed < 130, "but for the beginnings of blocks, each token once"
    assert bench.tokens("eldest") == answer(eldest, 0)
    assert bench.pool.free == bench.pool.num_blocks


def test_a_failed_step_leaves_nothing_wrong_to_those_who_had_no_part_in_it():
    bench = Bench(16)
    alike = prompt("b", 21, token=1)
    bench.add(prompt("a", 20, token=1), alike)
    batch = bench.scheduler.schedule()
    assert counts(batch) == [("a", 16)]
    bench.scheduler.discard(batch)
    bench.finish()
    assert bench.computed["b"] == list(range(21))
    assert bench.tokens("b") == answer(alike, 0)


def test_an_abort_in_the_midst_of_a_prefill_leaves_its_share_to_the_next():
    bench = Bench(16)
    bench.add(prompt("a", 200), prompt("b", 300))
    assert bench.step() == [("a", 16)]
    bench.scheduler.abort("a")
    assert bench.step() == [("b", 5)]  # a third: it is the only one now


def test_without_a_budget_a_step_takes_all_that_the_batch_has_room_for():
    bench = Bench(None)
    bench.add(prompt("long", LENGTH))
    assert [bench.step() for _ in range(7)] == [[("long", 512)]] * 7
