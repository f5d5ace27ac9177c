"""Models are loaded on demand, within the budget, and no request waits forever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_models import a_pool, loader_of, model_of

from fllm_api.lifecycle.client_disconnect import run_while_connected
from fllm_api.models.errors import ModelUnavailable
from fllm_api.models.pool import ModelPool

Work = Callable[[ModelPool[str]], Coroutine[Any, Any, None]]


async def ask(pool: ModelPool[str], name: str, client: str = "c", steps: int = 1) -> str:
    """Use a model as a request does, for some iterations of the event loop; return what was loaded."""
    lease = await pool.acquire(model_of(pool, name), client)
    try:
        for _ in range(steps):
            assert lease.loaded in loader_of(pool, name).present, "no request loses its model"
            await asyncio.sleep(0)
        return lease.loaded
    finally:
        lease.release()


async def settle(pool: ModelPool[str]) -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_model_is_loaded_when_it_is_first_asked() -> None:
    async def go() -> None:
        pool = a_pool([10, 10])
        assert model_of(pool, "a").state == "unloaded"
        assert await ask(pool, "a") == "a"
        assert model_of(pool, "a").state == "loaded"
        assert await ask(pool, "a") == "a"
        assert loader_of(pool, "a").loads == 1
        assert (model_of(pool, "b").state, pool.used) == ("unloaded", 10)
        await pool.close()
        assert loader_of(pool, "a").present == set()

    asyncio.run(go())


def test_the_least_recently_used_model_makes_room() -> None:
    async def go() -> None:
        pool = a_pool([10, 10, 10], budget=20)
        for name in "abac":
            await ask(pool, name)
        assert loader_of(pool, "a").present == {"a", "c"}
        await ask(pool, "b")
        assert loader_of(pool, "a").present == {"b", "c"}

    asyncio.run(go())


def test_a_pinned_model_makes_no_room() -> None:
    async def go() -> None:
        pool = a_pool([10, 10, 10], budget=20)
        pool.pin(model_of(pool, "a"), pinned=True)
        for name in "abcb":
            await ask(pool, name)
            assert "a" in loader_of(pool, "a").present
        pool.pin(model_of(pool, "a"), pinned=False)
        await ask(pool, "c")
        assert loader_of(pool, "a").present == {"b", "c"}

    asyncio.run(go())


def test_models_that_leave_no_memory_to_others_can_not_be_pinned() -> None:
    pool = a_pool([10, 15], budget=20)
    assert pool.pin_problem([model_of(pool, "a")]) == (
        "the pinned models 'a' take 0 MiB of the memory budget of 0 MiB, and the largest other model 0 MiB"
    )
    assert a_pool([10, 10], budget=20).pin_problem([model_of(pool, "a")]) is None


def test_a_request_in_flight_is_not_interrupted() -> None:
    async def go() -> None:
        pool = a_pool([10, 10], budget=10)
        lease = await pool.acquire(model_of(pool, "a"))
        waiting = asyncio.create_task(ask(pool, "b"))
        await settle(pool)
        assert not waiting.done()
        assert loader_of(pool, "a").present == {"a"}
        lease.release()
        lease.release()  # has no effect
        assert await waiting == "b"
        assert loader_of(pool, "a").present == {"b"}

    asyncio.run(go())


def test_a_busy_model_starts_a_bounded_number_of_requests_while_another_waits() -> None:
    """The other one is loaded although a new request has always started before the last one ends."""

    async def go() -> None:
        pool = a_pool([10, 10], budget=10, group_size=4)
        held = await pool.acquire(model_of(pool, "a"))
        waiting = asyncio.create_task(ask(pool, "b"))
        await settle(pool)
        started = 0
        while (more := pool.try_acquire(model_of(pool, "a"))) is not None:
            held.release()
            held, started = more, started + 1
        assert started == 4
        late = asyncio.create_task(ask(pool, "a"))
        await settle(pool)
        assert [each.done() for each in (waiting, late)] == [False, False]
        held.release()
        assert await waiting == "b"
        assert await late == "a"

    asyncio.run(go())


def test_requests_that_wait_are_one_group() -> None:
    """Eight clients alternate between two models, one of which fits: each swap serves a whole group."""

    async def go() -> None:
        pool = a_pool([10, 10], budget=10)
        answered = 0

        async def client(number: int) -> None:
            nonlocal answered
            for turn in range(25):
                name = "ab"[turn % 2]
                assert await ask(pool, name, f"client {number}") == name
                answered += 1

        await asyncio.gather(*map(client, range(8)))
        assert answered == 200
        swaps = sum(loader_of(pool, name).loads for name in "ab")
        assert swaps <= 60, "nearly every swap serves four requests, the size of a group"

    asyncio.run(go())


def test_clients_take_turns() -> None:
    """A client that asks for many models delays another one by one load, not by all."""

    async def go() -> None:
        pool = a_pool([10] * 7, budget=10)
        held = await pool.acquire(model_of(pool, "a"))
        order: list[str] = []

        async def one(name: str, client: str) -> None:
            order.append(await ask(pool, name, client))

        greedy = [asyncio.create_task(one(name, "greedy")) for name in "bcdef"]
        await settle(pool)
        modest = asyncio.create_task(one("g", "modest"))
        await settle(pool)
        held.release()
        await asyncio.gather(*greedy, modest)
        assert order == ["b", "g", "c", "d", "e", "f"]

    asyncio.run(go())


def test_a_model_that_can_not_be_loaded_does_not_harm_others() -> None:
    async def go() -> None:
        now = 100.0
        pool = a_pool([10, 10], budget=10, clock=lambda: now)
        loader_of(pool, "a").fails = 2
        for delay in (1, 2):
            failed = await asyncio.gather(*(ask(pool, "a") for _ in range(3)), return_exceptions=True)
            assert {str(error) for error in failed} == {
                "503: the model 'a' can't be loaded; the server's log says why, and it is tried again "
                f"in {delay} s"
            }
            assert model_of(pool, "a").error == "no such file"
            assert await ask(pool, "b") == "b"
            with pytest.raises(ModelUnavailable) as soon:  # at once, without another try
                await ask(pool, "a")
            assert soon.value.headers == {"Retry-After": str(delay)}
            now += delay
        assert await ask(pool, "a") == "a"
        assert loader_of(pool, "a").loads == 3
        assert model_of(pool, "a").failures == 0

    asyncio.run(go())


def test_a_failed_load_can_be_tried_again_at_once() -> None:
    async def go() -> None:
        pool = a_pool([10])
        loader_of(pool, "a").fails = 1
        with pytest.raises(ModelUnavailable):
            await ask(pool, "a")
        pool.retry(model_of(pool, "a"))
        assert await ask(pool, "a") == "a"

    asyncio.run(go())


def test_a_request_that_gives_up_leaves_its_place() -> None:
    async def go() -> None:
        pool = a_pool([10, 10], budget=10)
        held = await pool.acquire(model_of(pool, "a"))
        given_up = asyncio.create_task(ask(pool, "b"))
        await settle(pool)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert pool.waiting(model_of(pool, "b")) == 0
        held.release()
        await settle(pool)
        assert loader_of(pool, "a").present == {"a"}, "nobody needs the memory"

    asyncio.run(go())


def test_a_lease_that_nobody_awaits_any_more_is_released() -> None:
    async def go() -> None:
        pool = a_pool([10])
        waiter = pool.wait(model_of(pool, "a"), "c")
        await settle(pool)
        assert model_of(pool, "a").in_flight == 1
        pool.cancel(waiter)
        assert model_of(pool, "a").in_flight == 0

    asyncio.run(go())


def test_too_many_waiting_requests_are_rejected_with_the_time_until_their_model_is_loaded() -> None:
    async def go() -> None:
        pool = a_pool([10, 10], budget=10, max_waiting=2)
        held = await pool.acquire(model_of(pool, "a"))
        model_of(pool, "b").load_seconds = 7.0
        waiting = [asyncio.create_task(ask(pool, "b")) for _ in range(2)]
        await settle(pool)
        with pytest.raises(ModelUnavailable) as rejected:
            await ask(pool, "b")
        assert rejected.value.headers == {"Retry-After": "7"}
        assert rejected.value.detail == (
            "2 requests wait for models to be loaded, 2 of them for 'b'; try again in 7 s"
        )
        held.release()
        assert await asyncio.gather(*waiting) == ["b", "b"]

    asyncio.run(go())


def test_a_request_learns_its_place() -> None:
    async def go() -> None:
        pool = a_pool([10, 10, 10], budget=10)
        held = await pool.acquire(model_of(pool, "a"))
        first, second, third = (pool.wait(model_of(pool, name), "x") for name in "bbc")
        assert pool.describe(second) == (
            "request 2 of 2 that wait for the model 'b', which is loaded once there is memory"
        )
        assert pool.describe(third) == (
            "request 1 of 1 that wait for the model 'c', which is number 2 of the models to be loaded"
        )
        held.release()
        while model_of(pool, "b").state != "loading":
            await asyncio.sleep(0)
        assert pool.describe(first) == "request 1 of 2 that wait for the model 'b', which is being loaded"

    asyncio.run(go())


def test_an_idle_model_sleeps() -> None:
    async def go() -> None:
        pool = a_pool([10, 10])
        model_of(pool, "a").idle_timeout = 0.02
        held = await pool.acquire(model_of(pool, "a"))
        await ask(pool, "b")
        await asyncio.sleep(0.05)
        assert model_of(pool, "a").state == "loaded", "it is in use"
        held.release()
        await asyncio.sleep(0.05)
        assert (model_of(pool, "a").state, model_of(pool, "b").state) == ("sleeping", "loaded")
        assert await ask(pool, "a") == "a"

    asyncio.run(go())


def test_unloading_waits_for_the_requests_in_flight() -> None:
    async def go() -> None:
        pool = a_pool([10])
        held = await pool.acquire(model_of(pool, "a"))
        unloading = asyncio.create_task(pool.unload(model_of(pool, "a")))
        await settle(pool)
        late = asyncio.create_task(ask(pool, "a"))
        await settle(pool)
        assert [each.done() for each in (unloading, late)] == [False, False]
        held.release()
        await unloading
        assert await late == "a"
        assert loader_of(pool, "a").loads == 2

    asyncio.run(go())


def test_a_model_that_has_grown_beyond_the_budget_makes_idle_ones_leave() -> None:
    async def go() -> None:
        pool = a_pool([10, 10], budget=20)
        await ask(pool, "a")
        await ask(pool, "b")
        pool.record_size(model_of(pool, "b"), 15)
        await settle(pool)
        assert loader_of(pool, "a").present == {"b"}
        pool.record_size(model_of(pool, "b"), 30)
        await settle(pool)
        assert loader_of(pool, "a").present == {"b"}, "without it, nothing could be served"
        await ask(pool, "a")
        await ask(pool, "b")
        assert loader_of(pool, "a").present == {"b"}

    asyncio.run(go())


def test_closing_ends_loads_and_rejects_requests() -> None:
    async def go() -> None:
        pool = a_pool([10, 10], budget=10)
        loader_of(pool, "a").steps = 1000
        waiting = [asyncio.create_task(ask(pool, name)) for name in "ab"]
        await settle(pool)
        await pool.close()
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, ModelUnavailable)
        assert loader_of(pool, "a").present == set()
        with pytest.raises(ModelUnavailable):
            await ask(pool, "a")

    asyncio.run(go())


def test_a_load_that_ends_while_its_size_is_measured_is_undone() -> None:
    async def go() -> None:
        pool = a_pool([10])
        loader = loader_of(pool, "a")
        measuring = asyncio.Event()

        async def measure(loaded: str) -> int:
            measuring.set()
            await asyncio.sleep(1000)
            raise AssertionError(loaded)

        loader.measure = measure  # type: ignore[method-assign]
        waiting = asyncio.create_task(ask(pool, "a"))
        await measuring.wait()
        await pool.close()
        assert loader.present == set()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(go())


def test_a_load_by_hand_leaves_no_lease_behind_whenever_it_is_cancelled() -> None:
    async def connected() -> Any:
        await asyncio.Event().wait()

    async def go() -> None:
        for steps in range(1, 20):
            pool = a_pool([10])
            model = model_of(pool, "a")
            loading = asyncio.create_task(run_while_connected(connected, pool.load(model)))
            for _ in range(steps):
                await asyncio.sleep(0)
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            assert model.in_flight == 0
            await pool.close()

    asyncio.run(go())


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "ask", "cancel", "fail", "unload", "pin", "unpin"]),
        st.integers(0, 3),
        st.integers(0, 2),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(operations=OPERATIONS, sizes=st.lists(st.integers(1, 10), min_size=2, max_size=4))
def test_no_sequence_of_events_exceeds_the_budget_or_loses_a_request(
    operations: list[tuple[str, int, int]], sizes: list[int]
) -> None:
    async def go() -> None:
        budget = 12
        pool = a_pool(sizes, budget=budget, group_size=2)
        tasks: list[asyncio.Task[str]] = []
        others: list[asyncio.Task[None]] = []
        chosen = random.Random(0)
        for what, index, client in operations:
            model = pool.models[index % len(sizes)]
            if what == "ask":
                work = ask(pool, model.name, f"client {client}", steps=1 + client)
                tasks.append(asyncio.create_task(work))
            elif what == "cancel" and tasks:
                chosen.choice(tasks).cancel()
            elif what == "fail":
                loader_of(pool, model.name).fails = 1
                pool.retry(model)
            elif what == "unload":
                others.append(asyncio.create_task(pool.unload(model)))
            elif what == "pin" and pool.pin_problem([model]) is None:
                pool.pin(model, pinned=True)
            elif what == "unpin":
                pool.pin(model, pinned=False)
            await asyncio.sleep(0)
            assert pool.used <= budget
            assert sum(loader_of(pool, name).size for name in loader_of(pool, "a").present) <= budget
        async with asyncio.timeout(20):
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*others)
        for result in results:
            assert isinstance(result, str | ModelUnavailable | asyncio.CancelledError), result
        assert all(model.in_flight == 0 == pool.waiting(model) for model in pool.models)
        await pool.close()
        assert loader_of(pool, "a").present == set()

    asyncio.run(go())
