"""The memory that request bodies hold."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest
from litestar.exceptions import HTTPException

from fllm.concurrency.turn_executor import TurnExecutor, run_at_once
from fllm.errors import RequestError
from fllm_api.limits.admission import ServerBusy
from fllm_api.limits.body_memory import (
    GROWTH,
    LARGE_BODY,
    MAX_WAITING,
    PIECE_BYTES,
    SMALL_BODY,
    BodyMemory,
    BodyReservation,
    count_body,
)

MIB = 1024 * 1024


def run(work: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def size_of(body: bytes) -> int:
    return run_at_once(count_body(body)).decoded_size


def test_a_client_waits_for_its_share_and_then_gets_503_but_others_are_read() -> None:
    async def go() -> None:
        memory = BodyMemory(16 * MIB, max_wait=0.01)
        first = BodyReservation(memory, "greedy")
        await first.receive(5 * MIB)
        with pytest.raises(ServerBusy) as caught:
            await BodyReservation(memory, "greedy").receive(3 * MIB)
        assert caught.value.headers == {"Retry-After": "1"}
        await BodyReservation(memory, "other").receive(3 * MIB)
        waiting = asyncio.create_task(BodyReservation(memory, "greedy").receive(4 * MIB))
        await asyncio.sleep(0)
        first.release()
        await waiting
        assert memory.received.free == MIB

    run(go())


def test_the_requests_of_a_client_that_wait_are_bounded() -> None:
    async def go() -> None:
        memory = BodyMemory(2 * MIB, max_wait=0)
        await BodyReservation(memory, "a").receive(MIB)
        reservations = [BodyReservation(memory, "a") for _ in range(MAX_WAITING)]
        tasks = [asyncio.create_task(each.receive(MIB)) for each in reservations]
        await asyncio.sleep(0)
        with pytest.raises(ServerBusy):
            await BodyReservation(memory, "a").receive(MIB)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert memory.received.waiting("a") == 0

    run(go())


def test_a_body_larger_than_the_memory_is_413() -> None:
    async def go() -> None:
        memory = BodyMemory(2 * MIB, max_wait=1)
        with pytest.raises(HTTPException) as caught:
            await BodyReservation(memory, "a").receive(MIB + 1)
        assert caught.value.status_code == 413
        with pytest.raises(HTTPException) as caught:
            BodyReservation(memory, "a").grow(MIB + 1)
        assert caught.value.status_code == 413

    run(go())


def test_a_body_of_unknown_length_takes_memory_in_steps_and_never_waits() -> None:
    memory = BodyMemory(8 * GROWTH, max_wait=1)
    body = BodyReservation(memory, "a")
    body.grow(SMALL_BODY)
    assert memory.received.free == 4 * GROWTH
    body.grow(SMALL_BODY + 1)
    assert memory.received.free == 3 * GROWTH
    body.grow(GROWTH + 1)
    assert memory.received.free == 2 * GROWTH
    with pytest.raises(ServerBusy):
        body.grow(3 * GROWTH)
    assert memory.received.free == 2 * GROWTH


def test_a_body_that_is_decoded_waits_for_the_objects_of_others_and_a_huge_one_for_all() -> None:
    async def go() -> None:
        memory = BodyMemory(2 * MIB, max_wait=0.01)
        first, huge = BodyReservation(memory, "a"), BodyReservation(memory, "b")
        await first.decode(b'"x"', 100)
        await first.decode(b"[" * 1000, 100)
        assert memory.decoded.free == MIB - size_of(b'"x"'), "only the first call counts"
        waiting = asyncio.create_task(huge.decode(b"\xf0" * MIB, 100))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        first.discard()
        await waiting
        assert memory.decoded.free == 0
        huge.release()
        assert (memory.received.free, memory.decoded.free) == (MIB, MIB)

    run(go())


def test_discarded_bytes_that_will_be_logged_are_kept_until_the_end() -> None:
    async def go() -> None:
        memory = BodyMemory(2 * MIB, max_wait=1, keeps_bytes=True)
        body = BodyReservation(memory, "a")
        await body.receive(MIB // 2)
        await body.decode(b'"x"', 100)
        body.discard()
        assert (memory.received.free, memory.decoded.free) == (MIB // 2, MIB)
        body.release()
        assert memory.received.free == MIB

    run(go())


@pytest.mark.parametrize(
    ("body", "width"),
    [(b'"abc"', 1), ('"é"'.encode(), 2), ('"漢"'.encode(), 2), ('"😀"'.encode(), 4), (b'"\\ud83d"', 4)],
)
def test_wide_characters_count_with_the_width_of_their_string(body: bytes, width: int) -> None:
    assert size_of(body) == 3 * width * len(body)


def test_values_count_with_their_objects() -> None:
    assert size_of(b"[[],{}]") > 3 * 72
    assert size_of(b"") == 1


def test_the_values_of_a_large_body_are_counted_in_pieces() -> None:
    piece = b"[1," + b"x" * (PIECE_BYTES - 4) + b"\\"
    body = piece + b"u0041" + piece * 2
    counts = run_at_once(count_body(body))
    assert (counts.values, counts.has_escapes, counts.is_ascii) == (6, True, True)
    assert sum(1 for _ in count_body(body)) == 4


def test_a_body_with_too_many_values_is_rejected_whether_it_is_small_or_large() -> None:
    async def go(body: bytes) -> None:
        turns = TurnExecutor()
        memory = BodyMemory(1024 * MIB, max_wait=1, turns=turns)
        with pytest.raises(RequestError, match="the body has about 101 values; the maximum is 100"):
            await BodyReservation(memory, "a").decode(body, 100)
        assert memory.decoded.free == memory.decoded.units
        turns.close()

    for body in (b"," * 101, b"," * 101 + b" " * 2 * LARGE_BODY):
        asyncio.run(go(body))
