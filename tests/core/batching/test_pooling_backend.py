"""The backend over a runner: batches of several requests, cancellation, failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from fllm import (
    BackendConfig,
    BackendContext,
    BackendError,
    BackendLost,
    BackendUnavailable,
    GenerateRequest,
    ModelCard,
    PoolingBackend,
    PoolingCard,
    PoolingInput,
    PoolingRequest,
    Progress,
    RequestError,
    SamplingParams,
)
from fllm.batching import BatchedPoolingBackend, PoolingRow


class FakeRunner:
    """The vector of an input is its first token, one byte for each of its tokens."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()

    def load(self, progress: Callable[[Progress], None]) -> ModelCard:
        runtime = {"vocab_size": 10, "max_num_batched_tokens": 16}
        card = PoolingCard(task="embed", size=4)
        return ModelCard(tokenizer="", max_model_len=20, pooling=card, runtime=runtime)

    def pool(self, rows: Sequence[PoolingRow]) -> Sequence[bytes]:
        assert self.gate.wait(30)
        firsts = [row.input.token_ids[0] for row in rows]
        self.batches.append(firsts)
        if 9 in firsts:
            raise RuntimeError("broken")
        return [bytes([first]) * 4 for first in firsts]

    def close(self) -> None:
        self.closed = True


def inputs(*firsts: int, length: int = 4) -> list[PoolingInput]:
    return [PoolingInput([first] * length) for first in firsts]


def run(work: Callable[[BatchedPoolingBackend, FakeRunner], Coroutine[Any, Any, None]]) -> FakeRunner:
    runner = FakeRunner()

    async def go() -> None:
        config = BackendConfig(model="m", engine_timeout=5.0)
        backend = BatchedPoolingBackend(runner, config, BackendContext())
        assert isinstance(backend, PoolingBackend)
        await backend.start()
        try:
            await work(backend, runner)
        finally:
            await backend.stop()

    asyncio.run(go())
    return runner


def test_requests_of_several_clients_share_batches_and_keep_their_order() -> None:
    async def work(backend: BatchedPoolingBackend, runner: FakeRunner) -> None:
        one = PoolingRequest(request_id="1", inputs=inputs(1, 2, 3), client="a")
        two = PoolingRequest(request_id="2", inputs=inputs(4), client="b")
        first, second = await asyncio.gather(backend.pool(one), backend.pool(two))
        assert (first.values, first.size) == (bytes([1] * 4 + [2] * 4 + [3] * 4), 1)
        assert second.values == bytes([4] * 4)
        assert (await backend.status()).waiting == 0

    runner = run(work)
    assert sorted(runner.batches[0]) == [1, 2, 3, 4]
    assert runner.closed


def test_what_a_cancelled_request_waits_for_is_not_computed() -> None:
    async def work(backend: BatchedPoolingBackend, runner: FakeRunner) -> None:
        runner.gate.clear()
        long = PoolingRequest(request_id="1", inputs=inputs(*[1] * 40), client="a")
        task = asyncio.create_task(backend.pool(long))
        while not (status := await backend.status()).running:
            await asyncio.sleep(0.001)
        assert status.running + status.waiting == 40
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await backend.status()).waiting == 0
        runner.gate.set()
        other = await backend.pool(PoolingRequest(request_id="2", inputs=inputs(5)))
        assert other.values == bytes([5] * 4)

    assert len(run(work).batches) == 2


def test_a_batch_that_fails_fails_its_requests_only() -> None:
    async def work(backend: BatchedPoolingBackend, _: FakeRunner) -> None:
        with pytest.raises(BackendError, match="broken"):
            await backend.pool(PoolingRequest(request_id="1", inputs=inputs(9)))
        await backend.pool(PoolingRequest(request_id="2", inputs=inputs(1)))

    run(work)


def test_a_runner_that_fails_again_and_again_is_lost() -> None:
    async def work(backend: BatchedPoolingBackend, _: FakeRunner) -> None:
        for i in range(5):
            with pytest.raises(BackendError):
                await backend.pool(PoolingRequest(request_id=str(i), inputs=inputs(9)))
        with pytest.raises(BackendLost, match="5 batches failed in a row"):
            await backend.status()

    run(work)


def test_requests_in_flight_fail_when_the_backend_stops() -> None:
    async def work(backend: BatchedPoolingBackend, runner: FakeRunner) -> None:
        runner.gate.clear()
        task = asyncio.create_task(backend.pool(PoolingRequest(request_id="1", inputs=inputs(1))))
        await asyncio.sleep(0.01)
        stopping = asyncio.create_task(backend.stop())
        await asyncio.sleep(0.01)
        runner.gate.set()
        with pytest.raises(BackendUnavailable):
            await task
        await stopping
        with pytest.raises(BackendUnavailable):
            await backend.pool(PoolingRequest(request_id="2", inputs=inputs(1)))

    run(work)


@pytest.mark.parametrize(
    ("request_", "param", "message"),
    [
        (PoolingRequest(request_id="1", inputs=[]), "input", "there is no input"),
        (PoolingRequest(request_id="1", inputs=[*inputs(1), PoolingInput([])]), "input[1]", "has no tokens"),
        (PoolingRequest(request_id="1", inputs=inputs(10)), "input", "token id 10 does not exist"),
        (PoolingRequest(request_id="1", inputs=inputs(-1)), "input", "token id -1 does not exist"),
        (
            PoolingRequest(request_id="1", inputs=inputs(1, length=21)),
            "input",
            "20 tokens, and the input has 21",
        ),
        (PoolingRequest(request_id="1", inputs=inputs(1), dimensions=5), "dimensions", "must be 1 to 4"),
    ],
)
def test_what_the_model_can_not_process_is_a_bad_request(
    request_: PoolingRequest, param: str, message: str
) -> None:
    async def work(backend: BatchedPoolingBackend, _: FakeRunner) -> None:
        with pytest.raises(RequestError, match=message) as raised:
            await backend.pool(request_)
        assert raised.value.param == param

    assert run(work).batches == []


def test_it_does_not_generate() -> None:
    async def work(backend: BatchedPoolingBackend, _: FakeRunner) -> None:
        with pytest.raises(RequestError, match="does not generate"):
            await anext(backend.generate(GenerateRequest("1", [1], SamplingParams(max_tokens=1))))

    run(work)
