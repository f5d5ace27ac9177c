"""Replicas are drained, removed and added while requests run; adapters and images reach all."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from support.fake_runner import FakeRunner, expected_tokens
from support.killable_engines import engines, request

from fllm import (
    BackendConfig,
    BackendContext,
    BackendUnavailable,
    ConfigError,
    Device,
    LoraAdapter,
    RequestError,
    UserError,
)
from fllm.errors import ModelNotFound
from fllm_backends.replicas.backend import replicas_backend
from fllm_backends.replicas.shares import Shares

LONG = request("r", max_tokens=300)


def test_draining_a_replica_loses_nothing() -> None:
    async def run() -> None:
        async with engines(2) as running:
            fleet = running.backend.fleet
            outputs = running.backend.generate(LONG)
            tokens = (await anext(outputs)).token_ids
            fleet.drain("replica-0")
            assert [each.state for each in (await fleet.status()).replicas] == ["draining", "ready"]
            for number in range(4):
                assert await running.tokens(request(f"s{number}")) == expected_tokens(request("s"), 0)
            assert len(running[0].requests) == 1
            drained = asyncio.create_task(fleet.drained("replica-0"))
            tokens += [token async for output in outputs for token in output.token_ids]
            await drained
            assert tokens == expected_tokens(LONG, 0)
            assert fleet.resume("replica-0").state == "ready"
            await running.tokens(request("t"))
            assert len(running[0].requests) == 2

    asyncio.run(run())


def test_a_removed_replica_passes_on_what_it_has_not_finished_and_its_totals_stay() -> None:
    async def run() -> None:
        async with engines(2) as running:
            fleet = running.backend.fleet
            outputs = running.backend.generate(LONG)
            tokens = (await anext(outputs)).token_ids
            queries = (await fleet.status()).prefix_queries
            await fleet.remove("replica-0", drain_seconds=0.01)
            tokens += [token async for output in outputs for token in output.token_ids]
            assert tokens == expected_tokens(LONG, 0)
            status = await fleet.status()
            assert [each.name for each in status.replicas] == ["replica-1"]
            moved = len(running[1].requests)  # 0 if the engine was faster than its removal
            assert status.prefix_queries == queries * (1 + moved) > 0
            assert await fleet.add() == "replica-0"
            assert (await fleet.status()).kv_blocks == 2 * status.kv_blocks
            with pytest.raises(RequestError, match="there are replica-1, replica-0"):
                fleet.drain("replica-7")

    asyncio.run(run())


def test_one_that_does_not_start_stops_the_others_or_is_not_added() -> None:
    started = list[FakeRunner]()

    def runner() -> FakeRunner:
        if len(started) == 2:
            raise ConfigError("there is no third")
        started.append(FakeRunner())
        return started[-1]

    async def run() -> None:
        async with engines(2, runner) as running:
            with pytest.raises(ConfigError):
                await running.backend.fleet.add()
            assert len((await running.backend.status()).replicas) == 2
        assert all(each.closed for each in started)
        started.clear()
        with pytest.raises(ConfigError):
            async with engines(3, runner):
                raise AssertionError("it starts")
        assert all(each.closed for each in started)

    asyncio.run(run())


def test_adapters_are_loaded_everywhere_also_into_replicas_that_come_later() -> None:
    async def run() -> None:
        first, second = (LoraAdapter(id=n, name=str(n), path="p") for n in (1, 2))
        async with engines(2, enable_lora=True, lora_modules=(first,)) as running:
            backend = running.backend
            await running[1].kill()
            await backend.load_adapter(second)
            assert (running[0].adapters, running[1].adapters) == ([1, 2], [1])
            await running[1].start()
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            assert running[1].adapters == [1, 2]
            await backend.fleet.add()
            await asyncio.sleep(0.01)
            assert running[2].adapters == [1, 2]
            await backend.unload_adapter(1)
            assert [running[n].adapters for n in range(3)] == [[2]] * 3
            asked = replace(request("r"), adapter=1)
            with pytest.raises(ModelNotFound):
                await running.tokens(asked)

    asyncio.run(run())


def test_an_adapter_that_one_replica_refuses_is_loaded_into_none() -> None:
    async def run() -> None:
        async with engines(2, enable_lora=True) as running:
            with pytest.raises(UserError, match="does not fit"):
                await running.backend.load_adapter(LoraAdapter(id=1, name="a", path="replica-1"))
            assert running[0].adapters == running[1].adapters == []
            for number in (0, 1):
                await running[number].kill()
            with pytest.raises(BackendUnavailable):
                await running.backend.load_adapter(LoraAdapter(id=1, name="a", path="p"))

    asyncio.run(run())


def test_images_are_prepared_where_they_are_needed() -> None:
    async def run() -> None:
        async with engines(2) as running:
            prepared = await running.backend.prepare_images([b"one", b"two"], "client")
            asked = replace(LONG, images=prepared.keys)
            outputs = running.backend.generate(asked)
            tokens = (await anext(outputs)).token_ids
            assert (len(running[0].prepared), len(running[1].prepared)) == (1, 0), "it has prepared them"
            await running[0].kill()
            tokens += [token async for output in outputs for token in output.token_ids]
            assert tokens == expected_tokens(LONG, 0)
            assert running[1].prepared == [prepared.keys]

    asyncio.run(run())


def test_a_request_that_every_replica_refuses_gets_the_refusal() -> None:
    async def run() -> None:
        async with engines(2) as running:
            with pytest.raises(BackendUnavailable, match="the images are not there"):
                await running.tokens(replace(LONG, images=("never seen",)))
            assert [len(running[n].requests) for n in (0, 1)] == [1, 1]

    asyncio.run(run())


def test_an_adapter_that_a_late_replica_refuses_is_tried_once_for_each_of_its_engines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        async with engines(1, enable_lora=True) as running:
            await running.backend.load_adapter(LoraAdapter(id=1, name="a", path="replica-1"))
            await running.backend.fleet.add()
            for number in range(8):
                await running.tokens(request(f"r{number}"))
            await asyncio.sleep(0.01)
            assert caplog.text.count("the adapter a can't be loaded") == 1
            assert await running.tokens(replace(request("s"), adapter=1)), "the other replica has it"
            await running[1].kill()
            await running[1].start()
            await asyncio.sleep(0.01)
            assert caplog.text.count("the adapter a can't be loaded") == 2

    asyncio.run(run())


def test_replicas_divide_devices_cores_and_names() -> None:
    gpus = tuple(Device("cuda", number) for number in range(4))
    config = BackendConfig(model="m", replicas=2, devices=gpus)
    second = Shares(config).config("replica-1")
    assert (second.devices, second.local_engines, second.engines_per_device) == (gpus[2:], 2, 1)
    assert (second.engine_name, second.replicas) == ("replica-1", 1)
    one = Shares(replace(config, devices=gpus[:1], engine_name="small")).config("replica-3")
    assert (one.devices, one.engines_per_device, one.engine_name) == (gpus[:1], 2, "small-replica-3")
    elsewhere = Shares(replace(config, placement="ray")).config("replica-0")
    assert (elsewhere.devices, elsewhere.local_engines) == (gpus, 1)
    with pytest.raises(ConfigError, match="--devices has 4 devices and --replicas is 3"):
        Shares(replace(config, replicas=3))


def test_a_backend_without_one_to_wrap_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="name one after it"):
        replicas_backend(BackendConfig(model="m"), BackendContext())
