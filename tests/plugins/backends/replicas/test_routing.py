"""Requests go where their prompts are cached, as long as nobody else is much less busy."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.fake_runner import FakeRunner
from support.killable_engines import BLOCK, Engines, engines, request

from fllm import CacheChanges, GenerateRequest, LoraAdapter, ModelCard, SamplingParams
from fllm_backends.replicas import replica as replica_module
from fllm_backends.replicas.assignment import Assignment
from fllm_backends.replicas.attempts import Attempts
from fllm_backends.replicas.replica import Replica
from fllm_backends.replicas.routing import Demand, PromptHasher, RoutingWeights, fair_load, select

SIZE = 16
CARD = ModelCard(
    tokenizer="", max_model_len=10**6, runtime={"block_size": SIZE, "enable_prefix_caching": True}
)
HASHER = PromptHasher(CARD)


def fleet(count: int) -> list[Replica]:
    replicas = [Replica(f"replica-{number}", lambda _: None) for number in range(count)]
    for each in replicas:
        each.on_ready()
    return replicas


def demand(token_ids: Sequence[int], **fields: object) -> Demand:
    asked = GenerateRequest("r", list(token_ids), SamplingParams(max_tokens=9), **fields)  # type: ignore[arg-type]
    return asyncio.run(HASHER.demand(asked))


def place(replicas: list[Replica], *args: object, **fields: object) -> Assignment:
    assignment = select(replicas, demand(*args, **fields))  # type: ignore[arg-type]
    assert assignment is not None
    return assignment


def serve(replicas: list[Replica], token_ids: Sequence[int], **fields: object) -> Replica:
    """Place a request and end it after its prefill, whose blocks its replica reports."""
    hashes = demand(token_ids, **fields).hashes
    assignment = place(replicas, token_ids, **fields)
    assignment.replica.on_cache_change(CacheChanges(gained=list(hashes)))
    assignment.record_output()
    assignment.end()
    return assignment.replica


def chat(number: int, turns: int) -> list[int]:
    return [token for turn in range(turns) for token in [number, turn] * 32]


def test_turns_of_a_chat_stay_where_their_history_is() -> None:
    replicas = fleet(3)
    homes = {number: serve(replicas, chat(number, 1)) for number in range(9)}
    assert Counter(homes.values()) == dict.fromkeys(replicas, 3), "equals take turns"
    for turns in range(2, 5):
        for number, home in reversed(homes.items()):
            assert serve(replicas, chat(number, turns)) is home


def test_simultaneous_requests_with_one_prefix_are_shared_fairly_and_do_not_scatter() -> None:
    replicas = fleet(4)
    prefix = list(range(2000))
    serve(replicas, prefix)
    placed = Counter(place(replicas, [*prefix, number, 7]).replica.name for number in range(10))
    assert placed == {"replica-0": 10}, "waiting for ten short prefills is faster than a long one"
    placed += Counter(place(replicas, [*prefix, number, 8]).replica.name for number in range(90))
    assert max(placed.values()) <= fair_load(100, 4) + 1 < 41
    assert min(placed.values()) >= 20


def test_a_hundred_requests_with_a_new_prefix_are_divided_evenly() -> None:
    replicas = fleet(2)
    placed = Counter(place(replicas, [*range(512), number]).replica.name for number in range(100))
    assert max(placed.values()) <= 60
    reserved = [each.count_cached(demand(range(513)).hashes) for each in replicas]
    assert reserved == [32, 32], "what a request is about to compute counts as cached"


def test_a_hot_replica_loses_only_the_requests_that_it_delays() -> None:
    replicas = fleet(3)
    homes = [serve(replicas, chat(number, 20)) for number in range(3)]
    hot = homes[0]
    hot.work += 20000
    assert serve(replicas, chat(0, 21)) is not hot
    assert [serve(replicas, chat(number, 21)) for number in (1, 2)] == homes[1:]


def test_weights_decide_between_a_prefix_and_requests_in_flight() -> None:
    def homes(**weights: float) -> list[str]:
        """Return where three requests with a prefix of 64 tokens go, each with 20 more."""
        replicas = fleet(2)
        chosen = []
        for number in range(3):
            assignment = select(
                replicas,
                demand([*range(64), *[100 + number] * 20]),
                RoutingWeights(**weights),  # type: ignore[arg-type]
            )
            assert assignment is not None
            chosen.append(assignment.replica.name)
        return chosen

    assert homes(prefill=3, decode=0) == ["replica-0", "replica-0", "replica-0"]
    assert homes(prefill=0, decode=0) == ["replica-0", "replica-1", "replica-0"]
    assert homes(prefill=3, decode=200) == ["replica-0", "replica-1", "replica-0"]
    capped = homes(prefill=3, decode=0, fair_share=0.5, free_requests=1)
    assert capped == ["replica-0", "replica-0", "replica-1"], "the first has no room"


def test_salts_images_and_adapters_have_prefixes_of_their_own() -> None:
    replicas = fleet(2)
    for each in replicas:
        each.adapters = {1}
    tokens = list(range(200))
    homes = {}
    for number, fields in enumerate(
        ({"cache_salt": "a"}, {"cache_salt": "b"}, {"images": ("k",)}, {"adapter": 1}, {})
    ):
        needed = demand(tokens, **fields)
        assert not any(each.count_cached(needed.hashes) for each in replicas), fields
        homes[number] = serve(replicas, tokens, **fields)
    assert serve(replicas, tokens, cache_salt="a") is homes[0]
    assert serve(replicas, tokens, cache_salt="b") is homes[1]
    shared = {"cache_salt": "c", "shared_tokens": 96}
    assert max(each.count_cached(demand(tokens, **shared).hashes) for each in replicas) == 96 // SIZE


def test_a_reservation_ends_with_the_first_output_or_with_the_request() -> None:
    [replica] = fleet(1)
    first, second = (place([replica], range(100)) for _ in range(2))
    assert replica.work == 100 + 4 + 2 * 16
    first.record_output()
    assert replica.work == 4 + 2 * 16
    assert replica.count_cached(demand(range(100)).hashes) == 6, "the second still computes them"
    second.end()
    assert replica.count_cached(demand(range(100)).hashes) == 0
    first.end()
    assert (replica.work, replica.requests, replica.unstarted) == (0, 0, 0)


def test_what_an_engine_held_is_forgotten_when_it_ends() -> None:
    replicas = fleet(2)
    home = serve(replicas, range(500))
    waiting = place(replicas, range(500))
    home.on_exit()
    home.on_ready()
    assert home.count_cached(demand(range(500)).hashes) == 0
    after = place(replicas, range(500))
    waiting.end()
    assert after.replica.count_cached(demand(range(500)).hashes) == 31, "that of the new engine counts"


def test_a_long_prompt_is_hashed_in_small_parts() -> None:
    asked = GenerateRequest("r", list(range(10**5)), SamplingParams(max_tokens=9))

    async def count() -> tuple[int, int]:
        others = 0
        hashing = asyncio.create_task(HASHER.demand(asked))
        while not hashing.done():
            others += 1
            await asyncio.sleep(0)
        return others, len((await hashing).hashes)

    others, hashes = asyncio.run(count())
    assert hashes == (10**5 - 1) // SIZE
    assert others > hashes / 300, "other tasks run in between"


@pytest.mark.parametrize("fields", [{}, {"cache_salt": "s"}, {"cache_salt": "s", "shared_tokens": 9}])
def test_the_front_computes_the_hashes_of_the_engine(fields: dict[str, object]) -> None:
    async def run() -> None:
        async with engines(1) as running:
            asked = replace(request("r", list(range(1, 10)) * 4), **fields)
            await running.tokens(asked)
            hashes = (await running.backend._hasher.demand(asked)).hashes
            assert running.replica(0).count_cached(hashes) == len(hashes) == 8

    asyncio.run(run())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(0, 1)), min_size=5, max_size=40))
def test_the_table_equals_what_the_engines_hold(prompts: list[tuple[int, int, int]]) -> None:
    """Random prompts with common prefixes, in a cache so small that blocks are evicted all the time."""

    async def run() -> None:
        async with engines(2, lambda: FakeRunner(blocks=24, block_size=BLOCK)) as running:
            for start in range(0, len(prompts), 4):
                await asyncio.gather(
                    *(
                        running.tokens(request(f"r{start + n}", [first] * length + [salt] * 9))
                        for n, (first, length, salt) in enumerate(prompts[start : start + 4])
                    )
                )
            await asyncio.sleep(0.01)  # the last changes are on their way
            for number in (0, 1):
                assert running.replica(number)._cached == held(running, number)
                assert not running.replica(number)._expected

    asyncio.run(run())


def held(running: Engines, number: int) -> set[bytes]:
    engine = running[number]._engine
    assert engine is not None
    return set(engine._engine._pool._block_of)


def test_an_adapter_goes_only_to_replicas_that_have_it() -> None:
    async def run() -> None:
        async with engines(2) as running:
            adapter = LoraAdapter(id=5, name="a", path="p")
            await running[0].load_adapter(adapter)
            running.replica(0).adapters.add(5)
            for _ in range(3):
                assignment = await Attempts(running.backend.fleet).assign(Demand(adapter=5))
                assert assignment.replica is running.replica(0)

    asyncio.run(run())


def test_the_blocks_of_an_engine_that_never_loses_any_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "MAX_BLOCKS", 4)
    replica = Replica("replica-0", lambda _: None)
    for number in range(4):
        replica.on_cache_change(CacheChanges(gained=[bytes([number])]))
    assert replica._cached == {b"\0", b"\1", b"\2", b"\3"}
    replica.on_cache_change(CacheChanges(gained=[b"\4"]))
    assert replica._cached == set()
