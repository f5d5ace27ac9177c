"""The process backend, with an inner backend that needs no model."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from msgspec.structs import replace
from support.paths import SUPPORT

from fllm import (
    BackendConfig,
    BackendContext,
    BackendError,
    BackendUnavailable,
    ConfigError,
    EngineOutput,
    EngineStats,
    FllmError,
    GenerateRequest,
    ModelCard,
    ModelError,
    PluginConfig,
    Progress,
    RequestError,
    SamplingParams,
    UserError,
)
from fllm.errors import ContextTooLong
from fllm.plugins.loader import load_plugins
from fllm.plugins.plugin_options import option_tables
from fllm.values import merge_outputs
from fllm_backends.process import backend as backend_module
from fllm_backends.process import child_process as engine_module
from fllm_backends.process import process_backend
from fllm_backends.process.backend import ProcessBackend, next_delay
from fllm_backends.process.child import PART_TOKENS, PROCESS_TITLE
from fllm_backends.process.child_process import CHILD_MODULE, EngineProcess
from fllm_backends.process.messages import PromptLogprobs, ToParent

PLUGIN = Path(__file__).with_name("inner_backend.py")


def build(
    progress: Callable[[Progress], None] = lambda _: None,
    model: str = "none",
    timeout: float = 60.0,
    **options: str,
) -> ProcessBackend:
    config = BackendConfig(model=model, chain=("echo", "rest"), options=options, engine_timeout=timeout)
    context = BackendContext(progress=progress, plugins=PluginConfig(paths=(str(PLUGIN),)))
    backend = process_backend(config, context)
    assert isinstance(backend, ProcessBackend)
    return backend


@asynccontextmanager
async def started(
    model: str = "none", timeout: float = 60.0, **options: str
) -> AsyncIterator[tuple[ProcessBackend, ModelCard]]:
    backend = build(model=model, timeout=timeout, **options)
    card = await backend.start()
    try:
        yield backend, card
    finally:
        await backend.stop()


def prompt(*tokens: int, how: str = "") -> GenerateRequest:
    return GenerateRequest("request", list(tokens), SamplingParams(max_tokens=99), how)


async def outputs_of(backend: ProcessBackend, request: GenerateRequest) -> list[EngineOutput]:
    return [step async for step in backend.generate(request)]


async def tokens(backend: ProcessBackend, request: GenerateRequest) -> list[int]:
    return [token for step in await outputs_of(backend, request) for token in step.token_ids]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


async def responds(backend: ProcessBackend) -> bool:
    try:
        await backend.status()
    except BackendUnavailable:
        return False
    return True


def test_outputs_arrive_in_order_and_complete() -> None:
    async def scenario() -> None:
        async with started() as (backend, _):
            assert merge_outputs(await outputs_of(backend, prompt(1, 2, 3))) == EngineOutput(
                token_ids=[1, 2, 3], finish_reason="length"
            )
            assert await outputs_of(backend, prompt(4)) == [
                EngineOutput(token_ids=[4], finish_reason="length", queue_time=0.25)
            ]

    asyncio.run(scenario())


def test_two_hundred_requests_keep_their_tokens_apart() -> None:
    async def scenario() -> None:
        async with started() as (backend, _):
            prompts = [list(range(n, n + 20)) for n in range(200)]
            got = await asyncio.gather(*(tokens(backend, prompt(*each)) for each in prompts))
        assert got == prompts

    asyncio.run(scenario())


def test_messages_larger_than_any_buffer_arrive_complete() -> None:
    async def scenario() -> None:
        many = list(range(500_000))
        async with started() as (backend, _):
            assert await outputs_of(backend, prompt(*many, how="at once")) == [
                EngineOutput(token_ids=many, finish_reason="length")
            ]

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [1, PART_TOKENS - 1, PART_TOKENS, 10 * PART_TOKENS])
def test_log_probabilities_of_a_prompt_arrive_in_parts_and_are_one_output(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, parts = EngineProcess._receive, list[int]()

    def counted(self: EngineProcess, message: ToParent) -> None:
        if isinstance(message, PromptLogprobs):
            parts.append(len(message.logprobs))
        receive(self, message)

    monkeypatch.setattr(EngineProcess, "_receive", counted)

    async def go() -> None:
        async with started() as (backend, _):
            both = await asyncio.gather(
                *(
                    outputs_of(backend, prompt(*range(first, first + count), how="logprobs"))
                    for first in (0, 1)
                )
            )
        for first, outputs in enumerate(both):
            assert [token for output in outputs for token in output.token_ids] == [7, 8]
            logprobs = outputs[0].prompt_logprobs
            assert logprobs is not None
            assert logprobs[0] is None
            assert [each.token_id for each in logprobs[1:] if each] == [*range(first, first + count)]

    asyncio.run(go())
    assert max(parts) <= PART_TOKENS
    assert sum(parts) == 2 * (count + 1)


def test_uvloop_serves_as_well() -> None:
    async def scenario() -> None:
        async with started() as (backend, _):
            assert await tokens(backend, prompt(1, 2)) == [1, 2]
            with pytest.raises(BackendUnavailable, match="signal 9"):
                await outputs_of(backend, prompt(1, how="die"))
            await until(lambda: responds(backend))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_the_inner_backend_gets_the_rest_of_the_chain() -> None:
    async def scenario() -> None:
        async with started() as (_, card):
            assert card.runtime["chain"] == ["rest"]
            assert card.runtime["pid"] != os.getpid()

    asyncio.run(scenario())


def test_a_process_without_an_inner_backend_is_an_error() -> None:
    with pytest.raises(ConfigError, match="wraps another"):
        process_backend(BackendConfig(model="none"), BackendContext())


def test_idle_threads_sleep_unless_the_user_sets_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMP_BLOCKTIME", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)

    async def scenario() -> None:
        async with started() as (_, card):
            assert card.runtime["environment"] == {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "7"}

    asyncio.run(scenario())


def test_progress_of_the_start_is_forwarded() -> None:
    reports: list[Progress] = []

    async def scenario() -> None:
        backend = build(reports.append)
        await backend.start()
        await backend.stop()

    asyncio.run(scenario())
    assert reports == [Progress("weights", 1, 2)]


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("too long", ContextTooLong, "it does not fit"),
        ("refuse", RequestError, "no"),
        ("fail", BackendError, "ValueError: an error of third-party code"),
        ("trail off", BackendError, "without a finish reason"),
        ("puzzle", BackendError, "TypeError: Encoding objects of type object"),
    ],
)
def test_errors_keep_their_type_and_message(how: str, kind: type[FllmError], message: str) -> None:
    async def scenario() -> None:
        async with started() as (backend, _):
            with pytest.raises(kind, match=message) as caught:
                await outputs_of(backend, prompt(1, how=how))
            assert type(caught.value) is kind
            assert await tokens(backend, prompt(1)) == [1]

    asyncio.run(scenario())


def test_an_error_of_a_request_keeps_its_param_and_code() -> None:
    async def scenario() -> RequestError:
        async with started() as (backend, _):
            with pytest.raises(RequestError) as caught:
                await outputs_of(backend, prompt(1, how="refuse"))
            return caught.value

    error = asyncio.run(scenario())
    assert (error.param, error.code) == ("seed", "odd")


def test_closing_a_stream_closes_the_inner_one() -> None:
    async def scenario() -> None:
        async with started() as (backend, _):
            stream = backend.generate(prompt(1, how="wait"))
            waiting = asyncio.create_task(anext(stream))
            await backend.status()  # the request has reached the child: messages keep their order
            waiting.cancel()
            await asyncio.wait([waiting])
            await stream.aclose()
            assert (await backend.status()).preemptions == 1

    asyncio.run(scenario())


def test_a_stream_that_ended_is_not_aborted() -> None:
    async def scenario() -> None:
        async with started() as (backend, _):
            for _ in range(3):
                await outputs_of(backend, prompt(1))
            assert replace(await backend.status(), memory=0) == EngineStats()

    asyncio.run(scenario())


def test_an_unhealthy_inner_backend_is_unavailable() -> None:
    async def scenario() -> None:
        async with started(status="ill") as (backend, _):
            for _ in range(2):
                with pytest.raises(BackendUnavailable, match="not today"):
                    await backend.status()

    asyncio.run(scenario())


def test_an_engine_that_hangs_is_unavailable_and_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "STATUS_TIMEOUT", 0.1)
    monkeypatch.setattr(engine_module, "STOP_TIMEOUT", 0.1)

    async def scenario() -> int:
        async with started() as (backend, card):
            waiting = asyncio.create_task(outputs_of(backend, prompt(1, how="hang")))
            await asyncio.sleep(0)
            for _ in range(2):
                with pytest.raises(BackendUnavailable, match="does not respond"):
                    await backend.status()
            await backend.stop()
            with pytest.raises(BackendUnavailable, match="stopping"):
                await waiting
            return int(card.runtime["pid"])

    assert is_gone(asyncio.run(scenario()))


def test_a_death_ends_requests_in_flight_and_the_engine_is_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with started() as (backend, card):
            others = [asyncio.create_task(outputs_of(backend, prompt(1, how="wait"))) for _ in range(3)]
            await backend.status()
            with pytest.raises(BackendUnavailable, match=r"died \(signal 9, as when memory runs out\)"):
                await outputs_of(backend, prompt(1, how="die"))
            for other in others:
                with pytest.raises(BackendUnavailable, match=r"died \(signal 9, as when memory runs out\)"):
                    await other
            with pytest.raises(BackendUnavailable):
                await backend.status()
            with pytest.raises(BackendUnavailable):
                await outputs_of(backend, prompt(1))
            await until(lambda: responds(backend))
            assert await tokens(backend, prompt(1, 2)) == [1, 2]
            assert is_gone(card.runtime["pid"])

    caplog.set_level(logging.INFO, "fllm.engine")
    asyncio.run(scenario())
    assert caplog.messages == [
        "the engine process died (signal 9, as when memory runs out); it is started again in 0 s",
        "the engine is ready again",
    ]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("hang", "the engine process has not responded for 1 s"),
        ("lost", "the device has fallen off the bus"),
    ],
)
def test_an_engine_that_hangs_or_is_lost_is_killed_and_started_again(
    how: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with started(timeout=1.0) as (backend, card):
            with pytest.raises(BackendUnavailable, match=why):
                await outputs_of(backend, prompt(1, how=how))
            await until(lambda: responds(backend))
            assert await tokens(backend, prompt(1, 2)) == [1, 2]
            assert is_gone(card.runtime["pid"])

    caplog.set_level(logging.INFO, "fllm.engine")
    asyncio.run(scenario())
    assert caplog.messages == [f"{why}; it is started again in 0 s", "the engine is ready again"]


def test_a_restart_that_fails_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "next_delay", lambda delay: 0.5)

    async def scenario() -> None:
        async with started(str(tmp_path / "starts"), start="refuse the second") as (backend, _):
            with pytest.raises(BackendUnavailable):
                await outputs_of(backend, prompt(1, how="die"))
            await until(lambda: responds(backend))

    caplog.set_level(logging.INFO, "fllm.engine")
    asyncio.run(scenario())
    assert caplog.messages == [
        "the engine process died (signal 9, as when memory runs out); it is started again in 0 s",
        "the engine can't be started again: not now",
        "the engine could not be started; it is started again in 0.5 s",
        "the engine is ready again",
    ]


def test_a_stop_interrupts_the_wait_for_a_restart() -> None:
    async def scenario() -> None:
        async with started() as (backend, _):
            with pytest.raises(BackendUnavailable):
                await outputs_of(backend, prompt(1, how="die"))
            await asyncio.sleep(0)
            await backend.stop()
            with pytest.raises(BackendUnavailable, match="stopping"):
                await backend.status()

    asyncio.run(scenario())
    assert_no_child_is_left()


def test_the_delay_of_restarts_grows_to_a_limit() -> None:
    delays = [0.0]
    for _ in range(7):
        delays.append(next_delay(delays[-1]))
    assert delays == [0, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [("refuse", ModelError, "there is no model"), ("die", BackendError, "exit status 3")],
)
def test_a_start_that_fails_is_not_repeated(how: str, kind: type[FllmError], message: str) -> None:
    async def scenario() -> None:
        with pytest.raises(kind, match=message):
            await build(start=how).start()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    assert_no_child_is_left()


def test_an_unknown_inner_backend_is_the_users_error() -> None:
    async def scenario() -> None:
        config = BackendConfig(model="none", chain=("ecco",))
        context = BackendContext(plugins=PluginConfig(paths=(str(PLUGIN),)))
        with pytest.raises(UserError, match="did you mean 'echo'"):
            await process_backend(config, context).start()

    asyncio.run(scenario())


def test_a_start_that_is_cancelled_leaves_no_process(capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        starting = asyncio.create_task(build(start="wait").start())

        async def loading() -> bool:
            return "loading" in capfd.readouterr().out

        await until(loading)
        starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled()

    asyncio.run(scenario())
    assert_no_child_is_left()


def test_a_stop_leaves_no_process_no_task_and_no_descriptor(capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> int:
        before = set(os.listdir("/proc/self/fd"))
        async with started() as (backend, card):
            waiting = asyncio.create_task(outputs_of(backend, prompt(1, how="wait")))
            await backend.status()
            await backend.stop()
            with pytest.raises(BackendUnavailable, match="stopping"):
                await waiting
            with pytest.raises(BackendUnavailable, match="stopping"):
                await outputs_of(backend, prompt(1))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert set(os.listdir("/proc/self/fd")) <= before
        return int(card.runtime["pid"])

    assert is_gone(asyncio.run(scenario()))
    assert capfd.readouterr().out == "waiting\nstopped\n"


def test_a_backend_that_never_started_can_be_stopped() -> None:
    asyncio.run(build().stop())
    assert_no_child_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_group_are_left_to_the_parent(number: signal.Signals) -> None:
    async def scenario() -> None:
        async with started() as (backend, card):
            os.kill(card.runtime["pid"], number)
            assert await tokens(backend, prompt(1, 2)) == [1, 2]

    asyncio.run(scenario())


PARENT = """
import asyncio, sys
from fllm import BackendConfig, BackendContext, GenerateRequest, PluginConfig, SamplingParams
from fllm_backends.process import process_backend

async def main():
    context = BackendContext(plugins=PluginConfig(paths=(sys.argv[1],)))
    backend = process_backend(BackendConfig(model="none", chain=("echo",)), context)
    await backend.start()
    await anext(backend.generate(GenerateRequest("request", [1], SamplingParams(max_tokens=1), sys.argv[2])))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("how", "output", "last_output"),
    [("wait", b"waiting\n", b"stopped\n"), ("hang", b"hanging\n", b"")],
)
def test_a_child_ends_with_its_parent(how: str, output: bytes, last_output: bytes) -> None:
    command = [sys.executable, "-c", PARENT, str(PLUGIN), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == output
        parent.kill()
        assert parent.stdout.read() == last_output  # the pipe ends when the child has closed it, too


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def assert_no_child_is_left() -> None:
    """Check for engines and their zombies; servers of other tests are children of this process, too."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    assert not [
        pid
        for pid, command in commands.items()
        if not command or CHILD_MODULE.encode() in command or PROCESS_TITLE.encode() in command
    ]


def test_options_of_a_plugin_reach_the_engine() -> None:
    plugin = str(SUPPORT / "options_plugin.py")
    given = {"options_plugin": {"name": "there", "retry": {"attempts": 5}, "token": "s"}}
    config = PluginConfig(paths=(plugin,), options=tuple(option_tables(given)))
    plugins = load_plugins(config)

    async def card() -> ModelCard:
        backend = process_backend(
            BackendConfig(model="none", chain=("shown",)), BackendContext(plugins=plugins.engine_config())
        )
        try:
            return await backend.start()
        finally:
            await backend.stop()

    options = asyncio.run(card()).runtime["options"]
    assert options == {"name": "there", "port": 8125, "token": "s", "tags": [], "retry": {"attempts": 5}}
