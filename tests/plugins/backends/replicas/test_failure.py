"""An engine that ends costs no request and no token."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest
from support.fake_runner import FakeRunner, expected_tokens
from support.killable_engines import Engines, KillableEngine, engines, request

from fllm import BackendError, BackendUnavailable, EngineOutput, EngineStats, GenerateRequest, SamplingParams
from fllm.batching import Row
from fllm_backends.replicas import fleet as fleet_module
from fllm_backends.replicas.replica import Replica


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.001)


def test_requests_of_a_killed_engine_end_with_the_same_tokens() -> None:
    async def run() -> None:
        async with engines(2) as running:
            asked = [
                request(f"r{n}", [n % 9, 1, n // 9], max_tokens=300, seed=n, logprobs=0) for n in range(16)
            ]
            received: list[list[EngineOutput]] = [[] for _ in asked]

            async def stream(number: int) -> None:
                async for output in running.backend.generate(asked[number]):
                    received[number].append(output)

            tasks = [asyncio.create_task(stream(number)) for number in range(16)]
            await until(lambda: sum(len(output.token_ids) for each in received for output in each) > 800)
            moved = running.replica(0).requests
            assert 0 < moved < 16
            await running[0].kill()
            await asyncio.gather(*tasks)
            assert running.replica(0).resumptions + running.replica(0).retries == moved
            for each, outputs in zip(asked, received, strict=True):
                tokens = [token for output in outputs for token in output.token_ids]
                assert tokens == expected_tokens(each, each.sampling.seed or 0)
                assert len([lp for output in outputs for lp in output.logprobs or ()]) == len(tokens)
                assert [output.finish_reason for output in outputs if output.finish_reason] == ["length"]
            names = {output.replica for outputs in received for output in outputs}
            assert names == {"", "replica-0", "replica-1"}

    asyncio.run(run())


def test_a_request_without_a_seed_continues_with_the_draws_of_its_first_engine() -> None:
    async def run() -> None:
        async with engines(2) as running:
            asked = GenerateRequest("r", [1, 2, 3], SamplingParams(max_tokens=200))
            outputs = running.backend.generate(asked)
            tokens = (await anext(outputs)).token_ids
            await running[0].kill()
            tokens += [token async for output in outputs for token in output.token_ids]
            first, second = running[0].requests[0], running[1].requests[0]
            assert first.sampling == second.sampling
            assert first.sampling.seed is not None
            assert tokens == expected_tokens(asked, first.sampling.seed)

    asyncio.run(run())


def test_without_resuming_a_stream_ends_with_the_error_and_a_request_without_output_is_retried() -> None:
    async def run() -> None:
        async with engines(2, resume=False) as running:
            outputs = running.backend.generate(request("r", max_tokens=500))
            await anext(outputs)
            running[1].frozen = True
            waiting = asyncio.create_task(running.tokens(request("s")))
            await until(lambda: running[1].requests)
            await running[0].kill()
            with pytest.raises(BackendUnavailable):
                [output async for output in outputs]
            await running[0].start()
            await running[1].kill()
            assert await waiting == expected_tokens(request("s"), 0)

    asyncio.run(run())


def test_a_request_that_ends_every_engine_ends_after_two() -> None:
    async def run() -> None:
        async with engines(3) as running:
            for engine in (running[0], running[1], running[2]):
                engine.frozen = True
            doomed = asyncio.create_task(running.tokens(request("r")))
            for number in (0, 1):
                await until(lambda n=number: running[n].requests)
                await running[number].kill()
            with pytest.raises(BackendError, match="2 engines ended") as error:
                await doomed
            assert not isinstance(error.value, BackendUnavailable)
            assert not running[2].requests

    asyncio.run(run())


def test_a_request_whose_machine_is_lost_continues_on_another_machine() -> None:
    """The other engine of the machine ends, too, but a moment later."""

    async def run() -> None:
        async with engines(3) as running:
            for number, node in ((0, "a"), (1, "a"), (2, "b")):
                running[number].frozen = True
                running.replica(number).node = node
            waiting = asyncio.create_task(running.tokens(request("r")))
            await until(lambda: running[0].requests)
            await running[0].kill()
            await until(lambda: running[2].requests or running[1].requests)
            assert not running[1].requests
            await running[1].kill()
            running[0].node = "c"
            await running[0].start()
            await running[2].kill()  # the second engine that may end because of it
            with pytest.raises(BackendError, match="2 engines ended"):
                await waiting

    asyncio.run(run())


def test_what_ends_an_engine_takes_no_other_request_with_it() -> None:
    """The prompts that begin with 9 end the engine; all others run next to them, each without an output."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        deaths, kills = list[KillableEngine](), list[asyncio.Task[None]]()

        def poison(rows: Sequence[Row]) -> None:
            if any(row.token_ids[0] == 9 for row in rows):
                engine = next(running[n] for n in range(3) if running[n].thread is threading.current_thread())
                deaths.append(engine)
                loop.call_soon_threadsafe(lambda: kills.append(loop.create_task(engine.kill())))
                raise SystemExit

        async with engines(3, lambda: FakeRunner(blocks=400, hook=poison)) as running:
            for number in (0, 1, 2):
                running.backend.fleet.drain(f"replica-{number}")
            running.backend.fleet.resume("replica-1")
            asked = [request(f"r{n}", [n, 1, 2]) for n in range(11)]
            tasks = [asyncio.create_task(running.tokens(each)) for each in asked]
            await until(lambda: len(running[1].requests) == 11)
            for number in (0, 2):
                running.backend.fleet.resume(f"replica-{number}")
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(results.pop(9), BackendError)
            asked.pop(9)
            assert results == [expected_tokens(each, 0) for each in asked]
            assert len(deaths) == 2

    asyncio.run(run())


@pytest.mark.parametrize("emits", [0, 3])
def test_what_ends_engines_in_mid_stream_takes_no_other_request_with_it(emits: int) -> None:
    """One request ends each engine, soon after it is resumed there. All others are resumed with it."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        deaths, kills = list[int](), list[asyncio.Task[None]]()
        limit = 60

        def poison(rows: Sequence[Row]) -> None:
            nonlocal limit
            time.sleep(0.001)  # the event loop keeps up
            length = max((len(row.token_ids) for row in rows if row.token_ids[0] == 9), default=0)
            if length >= limit:
                number = next(n for n in range(4) if running[n].thread is threading.current_thread())
                deaths.append(number)
                limit = length + emits
                loop.call_soon_threadsafe(lambda: kills.append(loop.create_task(running[number].kill())))
                raise SystemExit

        async with engines(4, lambda: FakeRunner(blocks=2000, hook=poison)) as running:
            for number in (0, 1, 2, 3):
                running.backend.fleet.drain(f"replica-{number}")
            running.backend.fleet.resume("replica-1")
            asked = [request(f"r{n}", [n, 1, 2], max_tokens=300) for n in range(11)]
            tasks = [asyncio.create_task(running.tokens(each)) for each in asked]
            await until(lambda: len(running[1].requests) == 11)
            for number in (0, 2, 3):
                running.backend.fleet.resume(f"replica-{number}")
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(results.pop(9), BackendError)
            asked.pop(9)
            assert results == [expected_tokens(each, 0) for each in asked]
            assert len(deaths) == 3

    asyncio.run(run())


def test_requests_wait_for_an_engine_that_comes_back_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with engines(2) as running:
            outputs = running.backend.generate(request("r", max_tokens=400))
            tokens = (await anext(outputs)).token_ids
            await running[0].kill()
            await running[1].kill()
            with pytest.raises(BackendUnavailable, match="replica-0 is down"):
                await running.backend.status()
            new = asyncio.create_task(running.tokens(request("new")))
            rest = asyncio.create_task(collect(outputs))
            await asyncio.sleep(0.05)
            await running[1].start()
            assert tokens + await rest == expected_tokens(request("r", max_tokens=400), 0)
            assert await new == expected_tokens(request("new"), 0)
            assert (await running.backend.status()).replicas[0].restarts == 1
            await running[1].kill()
            monkeypatch.setattr(fleet_module, "NEW_REQUEST_PATIENCE", 0.05)
            with pytest.raises(BackendUnavailable, match="no replica is available"):
                await running.tokens(request("late"))

    asyncio.run(run())


async def collect(outputs: object) -> list[int]:
    return [token async for output in outputs for token in output.token_ids]  # type: ignore[attr-defined]


def test_an_engine_that_answers_but_does_not_step_is_restarted_and_its_requests_move() -> None:
    async def run() -> None:
        async with engines(2, engine_timeout=0.3) as running:
            running[0].frozen = True
            stuck = asyncio.create_task(running.tokens(request("r")))
            await until(lambda: running[0].requests)
            await running[0].status()  # it answers
            await until(lambda: running.replica(0).stalled)
            assert await running.tokens(request("s")) == expected_tokens(request("s"), 0)
            assert len(running[0].requests) == 1, "new requests avoid it"
            assert await stuck == expected_tokens(request("r"), 0)
            assert running[0].restarts == ["the engine has requests, but has done nothing for 0.3 s"]
            await until(lambda: running.replica(0).ready)

    asyncio.run(run())


def test_an_engine_that_does_not_answer_gets_no_requests_while_others_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang() -> EngineStats:
        await asyncio.sleep(3600)
        raise AssertionError

    async def run() -> None:
        monkeypatch.setattr("fllm_backends.replicas.replica.STATUS_TIMEOUT", 0.01)
        async with engines(2, engine_timeout=0.1) as running:
            running[0].status = hang  # type: ignore[method-assign]
            await until(lambda: running.replica(0).stalled)
            for number in range(3):
                await running.tokens(request(f"r{number}"))
            assert len(running[1].requests) == 3
            assert running[0].restarts == [], "it has nothing to do"

    asyncio.run(run())


def test_a_client_that_does_not_read_is_no_reason_to_restart() -> None:
    async def run() -> None:
        async with engines(1, engine_timeout=0.1) as running:
            outputs = running.backend.generate(request("r"))
            await anext(outputs)
            await asyncio.sleep(0.5)
            assert running[0].restarts == []
            await outputs.aclose()

    asyncio.run(run())


def test_stopping_ends_what_waits_and_what_runs() -> None:
    async def run() -> None:
        running: Engines
        async with engines(1) as running:
            await running[0].kill()
            waiting = asyncio.create_task(running.tokens(request("r")))
            await asyncio.sleep(0.01)
        with pytest.raises(BackendUnavailable, match="stopping"):
            await waiting

    asyncio.run(run())


def test_a_replica_that_is_busy_at_its_first_check_has_not_been_silent() -> None:
    replica = Replica("replica-0", lambda _: None)
    replica.on_ready()
    replica.unstarted = 1
    assert [replica.count_silent_checks() for _ in range(3)] == [0, 1, 2]
    replica.outputs += 1
    assert replica.count_silent_checks() == 0
