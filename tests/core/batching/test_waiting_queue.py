"""The waiting queue, alone and in the scheduler."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st
from support.fake_runner import FakeRunner

from fllm.batching.batch import Batch
from fllm.batching.block_pool import BlockPool
from fllm.batching.limits import BatchLimits
from fllm.batching.scheduler import Scheduler
from fllm.batching.sequence import Sequence
from fllm.batching.waiting_queue import WaitingQueue
from fllm.values import BACKGROUND_PRIORITY, GenerateRequest, SamplingParams


def sequence(name: str, priority: int = 0) -> Sequence:
    """Return a sequence whose client is the first letter of its name."""
    return Sequence(
        id=name,
        client=name[0],
        priority=priority,
        token_ids=[1],
        prompt_length=1,
        sampling=SamplingParams(max_tokens=1),
        stop_ids=frozenset(),
        seed=0,
        arrival_time=0.0,
    )


def waiting(*names: str) -> WaitingQueue:
    queue = WaitingQueue()
    for name in names:
        queue.add(sequence(name))
    return queue


def drained(queue: WaitingQueue) -> list[str]:
    return [queue.pop().id for _ in range(len(queue))]


def test_clients_take_turns_and_each_is_served_in_order_of_arrival():
    assert drained(waiting("a1", "a2", "a3", "b1", "c1", "c2")) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_a_lower_priority_comes_first_but_only_among_those_of_its_client():
    queue = waiting("a1", "b1", "a2")
    queue.add(sequence("a3", -5))
    queue.add(sequence("a4", 7))
    queue.add(sequence("a5", -5))
    assert drained(queue) == ["a3", "b1", "a5", "a1", "a2", "a4"]


def test_a_sequence_that_was_running_comes_before_any_priority():
    queue = WaitingQueue()
    queue.add(sequence("a1", -5))
    queue.add_first(sequence("a2"))
    assert drained(queue) == ["a2", "a1"]


@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans()), max_size=30))
def test_one_client_is_served_by_priority_whatever_leaves(arrivals: list[tuple[int, bool]]) -> None:
    queue, kept = WaitingQueue(), []
    for number, (priority, leaves) in enumerate(arrivals):
        queue.add(sequence(f"a{number}", priority))
        if leaves:
            queue.remove(f"a{number}")
        else:
            kept.append((priority, number))
    assert drained(queue) == [f"a{number}" for _, number in sorted(kept)]


def test_one_client_alone_is_served_in_order_of_arrival():
    assert drained(waiting("a1", "a2", "a3")) == ["a1", "a2", "a3"]


def test_a_new_client_waits_for_one_sequence_of_each_other_client():
    queue = waiting(*[f"a{i}" for i in range(9)], *[f"b{i}" for i in range(9)])
    queue.pop()
    queue.add(sequence("c"))
    assert drained(queue)[:3] == ["b0", "a1", "c"]


def test_a_sequence_that_returns_is_the_first_of_its_client_only():
    queue = waiting("a1", "b1", "b2")
    queue.add_first(sequence("b0"))
    queue.add_first(sequence("c0"))
    assert drained(queue) == ["a1", "b0", "c0", "b1", "b2"]


def test_the_first_of_others_is_that_of_the_next_client():
    queue = waiting("a1", "b1", "b2", "c1")
    found = queue.first_of_others({"a"})
    assert found is not None
    assert queue.take(found).id == "b1"
    assert queue.first_of_others({"a", "b", "c"}) is None
    assert drained(queue) == ["a1", "c1", "b2"]


def test_a_client_that_was_served_and_returns_has_the_last_turn():
    queue = waiting("a1", "b1", "b2")
    queue.pop()
    queue.add(sequence("a2"))
    assert drained(queue) == ["b1", "a2", "b2"]


def test_preempted_sequences_go_first_and_take_no_turn_of_a_client():
    queue = waiting("a1", "b1", "a2", "b2")
    last, before = sequence("b9"), sequence("b8")
    queue.add_preempted(last)
    queue.add_preempted(before)
    assert drained(queue) == ["b8", "b9", "a1", "b1", "a2", "b2"]


def test_the_first_sequence_stays_first_when_others_arrive():
    queue = waiting("b1")
    for name in ("a1", "b2", "c1"):
        queue.add(sequence(name))
        assert queue.first() is not None
        assert queue.first().id == "b1"  # type: ignore[union-attr]


def test_a_sequence_in_the_background_waits_for_all_others_even_if_it_was_running():
    queue = WaitingQueue()
    returned, waiting = sequence("a0", BACKGROUND_PRIORITY), sequence("b0", BACKGROUND_PRIORITY + 1)
    queue.add(waiting)
    queue.add_preempted(returned)
    for name in ("a1", "c1"):
        queue.add(sequence(name))
    assert queue.first_of_others("ac") is None
    assert drained(queue) == ["a1", "c1", "a0", "b0"]


def test_a_removed_sequence_leaves_its_turn_to_the_next_of_its_client():
    queue = waiting("a1", "a2", "b1")
    dropped = queue.remove("a1")
    assert dropped is not None
    assert dropped.id == "a1"
    assert queue.remove("a1") is None
    assert drained(queue) == ["a2", "b1"]
    assert queue.first() is None


names = st.builds("{}{}".format, st.sampled_from("abc"), st.integers(0, 20))


@given(st.lists(st.tuples(st.sampled_from(["add", "add_preempted", "pop", "remove"]), names)))
def test_no_sequence_is_lost_or_duplicated(operations: list[tuple[str, str]]):
    queue, here = WaitingQueue(), set[str]()
    for operation, name in operations:
        if operation in ("add", "add_preempted") and name not in here:
            getattr(queue, operation)(sequence(name))
            here.add(name)
        elif operation == "pop" and here:
            here.remove(queue.pop().id)
        elif operation == "remove":
            assert (queue.remove(name) is not None) == (name in here)
            here.discard(name)
        assert len(queue) == len(here)
        assert (queue.first() is None) == (not here)
    assert set(drained(queue)) == here
    for turns in (queue._foreground, queue._background):
        assert not turns._clients
        assert not turns._preempted


class Harness:
    """A scheduler stepped by hand; it keeps the order in which sequences start and end."""

    def __init__(self, *, seqs: int, budget: int = 16, blocks: int = 4000) -> None:
        limits = BatchLimits(
            max_num_seqs=seqs, prefill_budget=budget, solo_prefill_budget=budget, block_size=4
        )
        self.limits = limits
        self.runner = FakeRunner(blocks=blocks, block_size=4)
        self.scheduler = Scheduler(BlockPool(blocks, 4), limits, max_model_len=12_000, clock=lambda: 0.0)
        self.ended: list[str] = []
        self.tokens: dict[str, int] = defaultdict(int)

    def add(
        self, name: str, length: int = 1, *, max_tokens: int = 2, token: int = 1, priority: int = 0
    ) -> None:
        request = GenerateRequest(
            name, [token] * length, SamplingParams(max_tokens=max_tokens), client=name[0], priority=priority
        )
        self.scheduler.add(request, seed=0, arrival_time=0.0)

    def step(self) -> Batch:
        batch = self.scheduler.schedule()
        for name, step in self.scheduler.complete(batch, self.runner.execute(batch.rows)):
            self.tokens[name] += len(step.token_ids)  # type: ignore[union-attr]
            if step.finish_reason:  # type: ignore[union-attr]
                self.ended.append(name)
        return batch


def test_a_client_with_200_requests_does_not_starve_one_with_one():
    harness = Harness(seqs=4)
    for number in range(200):
        harness.add(f"a{number}")
    harness.step()
    harness.add("b")
    while "b" not in harness.ended:
        harness.step()
    assert len(harness.ended) <= 2 * harness.limits.max_num_seqs


def test_two_clients_with_many_requests_have_half_each():
    harness = Harness(seqs=2)
    for client in "ab":
        for number in range(50):
            harness.add(f"{client}{number}")
    while len(harness.ended) < 50:
        harness.step()
    assert sum(name.startswith("a") for name in harness.ended) == 25


def test_an_endless_stream_of_short_prompts_does_not_starve_another_clients_long_one():
    harness = Harness(seqs=3)
    for number in range(500):
        harness.add(f"a{number}", 14, max_tokens=1, token=number + 2)
    harness.add("b", 120)
    for number in range(500, 700):
        harness.add(f"a{number}", 14, max_tokens=1, token=number + 2)
        harness.step()
    assert "b" in harness.ended


def test_a_long_prompt_takes_no_step_from_decoding_sequences():
    harness = Harness(seqs=8, budget=48, blocks=9000)
    streaming = [f"s{number}" for number in range(4)]
    for name in streaming:
        harness.add(name, 3, max_tokens=10_000)
    harness.step()
    harness.add("long", 2_000, max_tokens=1, token=7)
    steps = 0
    while "long" not in harness.ended:
        batch = harness.step()
        steps += 1
        decoding = [each.id for each, row in zip(batch.sequences, batch.rows, strict=True) if row.count == 1]
        assert [name for name in decoding if name in streaming] == streaming
        assert sum(row.count for row in batch.rows) <= len(streaming) + harness.limits.step_prefill_budget(
            512, solo=False
        )
    assert steps > 2_000 / 48
    assert [harness.tokens[name] for name in streaming] == [1 + steps] * 4


def test_a_request_takes_the_place_of_one_in_the_background_of_the_same_client():
    harness = Harness(seqs=2)
    for number in range(4):
        harness.add(f"a{number}", max_tokens=50, priority=BACKGROUND_PRIORITY)
    harness.step()
    harness.add("alive", max_tokens=3)
    for _ in range(3):
        harness.step()
    assert harness.ended == ["alive"]
    while harness.scheduler.busy:
        harness.step()
    assert harness.tokens == {"alive": 3} | {f"a{number}": 50 for number in range(4)}


def test_a_request_takes_the_blocks_of_those_in_the_background():
    harness = Harness(seqs=8, blocks=20)  # 80 tokens
    for number in range(3):
        harness.add(f"a{number}", 20, max_tokens=8, token=number + 2, priority=BACKGROUND_PRIORITY)
    while not harness.tokens:
        harness.step()
    harness.add("b", 60, max_tokens=10, token=9)
    while "b" not in harness.ended:
        batch = harness.step()
        assert "b" in [each.id for each in batch.sequences]
    assert harness.ended == ["b"]
    while harness.scheduler.busy:
        harness.step()
    assert harness.tokens == {"b": 10, "a0": 8, "a1": 8, "a2": 8}


def test_prompts_in_the_background_get_a_share_of_what_others_leave():
    harness = Harness(seqs=8, budget=16)
    harness.add("a", max_tokens=1000)
    harness.step()
    harness.add("b", 400, max_tokens=1, token=2, priority=BACKGROUND_PRIORITY)
    counts = [row.count for row in harness.step().rows]
    assert counts == [1, 4]
    harness.add("c", 100, max_tokens=1, token=3)
    batch = harness.step()
    assert [each.id for each in batch.sequences] == ["a", "c"]
    while "c" not in harness.ended:
        harness.step()
    assert "b" not in harness.ended


def test_those_in_the_background_take_turns_while_others_run():
    harness = Harness(seqs=8)
    for number in range(3):
        harness.add(f"b{number}", max_tokens=1000, priority=BACKGROUND_PRIORITY)
    harness.step()
    assert len(harness.step().rows) == 3
    harness.add("a", max_tokens=13)
    harness.tokens.clear()
    for _ in range(12):
        assert len(harness.step().rows) == 2
    assert harness.tokens == {"a": 12, "b0": 4, "b1": 4, "b2": 4}
    harness.step()
    assert harness.ended == ["a"]
    assert len(harness.step().rows) == 3
