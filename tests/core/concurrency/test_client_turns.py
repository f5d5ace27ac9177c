"""Turns of clients for work that takes time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fllm.concurrency.client_turns import LIGHT_SECONDS, LIGHT_SHARE, MAX_DEBT, ClientTurns, Turn


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(scenario: Callable[[ClientTurns, Clock], Awaitable[None]]) -> None:
    async def main() -> None:
        clock = Clock()
        await asyncio.wait_for(scenario(ClientTurns(2, 1, clock=clock), clock), 30)

    asyncio.run(main())


async def granted(turn: asyncio.Task[Turn]) -> bool:
    """Return whether a turn has begun by now."""
    for _ in range(9):
        await asyncio.sleep(0)
    return turn.done()


async def use(turns: ClientTurns, client: str, seconds: float) -> None:
    turn = await turns.acquire(client)
    turn.cpu_seconds += seconds
    turn.end()


def test_a_client_has_one_slot_and_leaves_the_others_to_others() -> None:
    async def scenario(turns: ClientTurns, _: Clock) -> None:
        first = await turns.acquire("a")
        second = asyncio.create_task(turns.acquire("a"))
        assert not await granted(second)
        (await turns.acquire("b")).end()
        first.end()
        assert await granted(second)

    run(scenario)


def test_heavy_clients_share_their_slots_in_turn() -> None:
    async def scenario(turns: ClientTurns, _: Clock) -> None:
        for client in ("a", "b"):
            await use(turns, client, 9.0)
        assert turns.is_heavy("a")
        first = await turns.acquire("a")
        waiting = [asyncio.create_task(turns.acquire(client)) for client in ("a", "b")]
        assert not await granted(waiting[1])
        (await turns.acquire("light")).end()
        first.end()
        assert await granted(waiting[1])
        assert not waiting[0].done()
        waiting[1].result().end()
        assert await granted(waiting[0])

    run(scenario)


def test_a_client_becomes_light_again_and_is_forgotten() -> None:
    async def scenario(turns: ClientTurns, clock: Clock) -> None:
        await use(turns, "a", LIGHT_SECONDS)
        assert not turns.is_heavy("a")
        await use(turns, "a", 1.0)
        assert turns.is_heavy("a")
        clock.now += 1.0 / LIGHT_SHARE
        assert not turns.is_heavy("a")
        clock.now += LIGHT_SECONDS / LIGHT_SHARE
        await use(turns, "b", 0.1)
        assert list(turns._paid_at) == ["b"]
        assert not turns._own

    run(scenario)


def test_what_counts_against_a_client_is_limited() -> None:
    async def scenario(turns: ClientTurns, clock: Clock) -> None:
        await use(turns, "a", 1e6)
        clock.now += MAX_DEBT / LIGHT_SHARE
        assert not turns.is_heavy("a")

    run(scenario)


def test_a_request_that_leaves_keeps_no_slot() -> None:
    async def scenario(turns: ClientTurns, _: Clock) -> None:
        busy = [await turns.acquire(client) for client in ("a", "b")]
        left = [asyncio.create_task(turns.acquire(client)) for client in ("a", "c", "c")]
        assert not await granted(left[1])
        for task in left:
            task.cancel()
        for turn in busy:
            turn.end()
        for client in ("a", "b"):
            await turns.acquire(client)
        assert not await granted(asyncio.create_task(turns.acquire("c")))

    run(scenario)


def test_work_that_has_started_keeps_its_turn_when_its_request_leaves() -> None:
    async def scenario(turns: ClientTurns, _: Clock) -> None:
        go = asyncio.Event()
        left = asyncio.create_task(turns.run("a", lambda _: go.wait()))
        await asyncio.sleep(0.01)
        left.cancel()
        following = asyncio.create_task(turns.acquire("a"))
        assert not await granted(following)
        go.set()
        assert await granted(following)

    run(scenario)
