"""Rounds and batches of inputs: clients take turns, and lengths are similar."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fllm.batching.pooling_queue import Item, PendingRequest, PoolingQueue
from fllm.values import BACKGROUND_PRIORITY, PoolingInput, PoolingRequest


def request(client: str, *lengths: int, **settings: Any) -> PendingRequest:
    inputs = [PoolingInput([1] * length) for length in lengths]
    return PendingRequest(PoolingRequest(request_id=client, inputs=inputs, client=client, **settings), 0.0)


def queue_of(max_tokens: int, *requests: PendingRequest) -> PoolingQueue:
    queue = PoolingQueue(max_tokens)
    for each in requests:
        queue.add(each)
    return queue


def flat(batches: list[list[Item]]) -> list[tuple[str, int]]:
    return [(item.pending.request.client, item.length) for batch in batches for item in batch]


def test_clients_take_turns_within_a_round() -> None:
    queue = queue_of(40, request("a", *[10] * 100), request("b", 10), request("c", 10))
    assert sorted(flat(queue.next_round())) == [("a", 10), ("a", 10), ("b", 10), ("c", 10)]
    assert flat(queue.next_round()) == [("a", 10)] * 4
    assert queue.inputs == 94


def test_a_client_that_was_served_is_behind_the_others() -> None:
    queue = queue_of(10, request("a", 10, 10), request("b", 10, 10))
    assert [flat(queue.next_round())[0][0] for _ in range(4)] == ["a", "b", "a", "b"]
    assert queue.next_round() == []


def test_requests_of_a_client_leave_by_priority_then_arrival() -> None:
    later, first, urgent = request("a", 5), request("a", 6), request("a", 7, priority=-1)
    queue = queue_of(7, first, later, urgent)
    assert [flat(queue.next_round())[0][1] for _ in range(3)] == [7, 6, 5]


def test_requests_in_the_background_leave_when_no_others_wait() -> None:
    queue = queue_of(20, request("a", 10, 10, priority=BACKGROUND_PRIORITY), request("a", 5), request("b", 6))
    rounds = [sorted(flat(queue.next_round())) for _ in range(3)]
    assert rounds == [[("a", 5), ("b", 6)], [("a", 10), ("a", 10)], []]
    assert queue.inputs == 0


def test_inputs_of_similar_length_share_a_batch() -> None:
    queue = queue_of(10_000, request("a", 300, 290, 10, 9), request("b", 280, 8))
    assert [[item.length for item in batch] for batch in queue.next_round()] == [[300, 290, 280], [10, 9, 8]]


def test_a_small_batch_is_padded_rather_than_divided() -> None:
    queue = queue_of(1000, request("a", 30, 2, 3))
    assert [[item.length for item in batch] for batch in queue.next_round()] == [[30, 3, 2]]


def test_an_input_beyond_the_maximum_is_alone() -> None:
    queue = queue_of(100, request("a", 500, 60), request("b", 50))
    rounds = [[[item.length for item in batch] for batch in queue.next_round()] for _ in range(2)]
    assert rounds == [[[500]], [[50]]]
    assert [item.length for item in queue.next_round()[0]] == [60]


def test_a_cancelled_request_leaves_the_queue() -> None:
    gone, stays = request("a", 5, 5), request("a", 6)
    queue = queue_of(100, gone, stays)
    queue.cancel(gone)
    assert gone.cancelled
    assert (queue.inputs, flat(queue.next_round())) == (1, [("a", 6)])
    queue.cancel(stays)
    assert queue.next_round() == []


def test_vectors_are_in_the_order_of_the_inputs() -> None:
    pending = request("a", 1, 3, 2)
    [batch] = queue_of(100, pending).next_round()
    for item in batch:
        assert not pending.complete
        pending.add(item.index, b"%d" % item.length)
    assert pending.complete
    assert pending.values() == b"132"


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(1, 50), min_size=1)), max_size=8),
    st.integers(10, 200),
)
def test_every_input_is_computed_once_and_within_the_maximum(
    requests: list[tuple[str, list[int]]], max_tokens: int
) -> None:
    queue = queue_of(max_tokens, *(request(client, *lengths) for client, lengths in requests))
    left = sum(len(lengths) for _, lengths in requests)
    while batches := queue.next_round():
        items = [item for batch in batches for item in batch]
        assert len(items) == 1 or sum(item.length for item in items) <= max_tokens
        for batch in batches:
            assert len(batch) == 1 or len(batch) * max(item.length for item in batch) <= max_tokens
        left -= len(items)
        assert queue.inputs == left
    assert left == 0
