"""Run a server: start the backend, listen, drain, stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import rich_click as click

from fllm.concurrency.timeout_executor import TimeoutExecutor
from fllm.engine_host import EngineHost
from fllm.errors import ModelError
from fllm.plugins.loader import Plugins
from fllm.resident_memory import return_freed_memory, unmap_idle_files
from fllm_api.cli.bind import allow_address_reuse, server_url
from fllm_api.cli.event_loop import loop_factory
from fllm_api.cli.model_files import StartedModel
from fllm_api.cli.model_loader import BACKEND_STOP_TIMEOUT, SettingsLoader, stop_backend
from fllm_api.cli.progress import report_progress
from fllm_api.cli.settings import Settings
from fllm_api.config import ServerConfig
from fllm_api.lifecycle.event_loop_watchdog import watch_event_loop

if TYPE_CHECKING:
    from fllm_api.app_state import AppState
    from fllm_api.listener import Listener
    from fllm_api.models.model import Model
    from fllm_api.models.pool import ModelPool

T = TypeVar("T")

CreateListener: TypeAlias = (
    "Callable[[Sequence[SettingsLoader], Plugins, StartedModel | None], tuple[Listener, ModelPool[AppState]]]"
)

log = logging.getLogger("fllm.server")


def run(
    models: Sequence[Settings], plugins: Plugins, sockets: list[socket.socket], started_at: float
) -> None:
    """Serve until SIGINT or SIGTERM. Raise `UserError` if the user can fix what prevents the start."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(models, plugins, sockets, started_at))


async def _serve(
    models: Sequence[Settings], plugins: Plugins, sockets: list[socket.socket], started_at: float
) -> None:
    interrupted = _interrupt_event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, models[0].server)
    async with AsyncExitStack() as stack:
        engine_host = EngineHost(plugins.placements.load, models[0].engine_network)
        stack.push_async_callback(engine_host.close)
        threads = TimeoutExecutor("fllm-load")
        loaders = [SettingsLoader(each, plugins, engine_host, threads) for each in models]
        start = _start_one if len(loaders) == 1 else _start_several
        listener = await _run_unless_interrupted(interrupted, start(loaders, plugins, stack))
        if listener is None:
            return
        listener.on_ready = lambda: _announce(models, sockets, started_at)
        await _listen(listener, sockets, interrupted, watchdog=models[0].server.watchdog)


def _reload(config: ServerConfig) -> None:
    """Read the API keys and the certificate again."""
    if config.tls is not None:
        config.tls.reload()
    if config.tls is None or config.keys.has_file:
        config.keys.reload()


async def _stop(stop: Callable[[], Awaitable[None]]) -> None:
    """Stop backends. If one does not stop in time, exit at once: its threads could block a normal exit."""
    try:
        await stop()
    except TimeoutError:
        log.error("the backend did not stop within %g s; exiting", BACKEND_STOP_TIMEOUT)
        os._exit(1)


async def _start_one(loaders: Sequence[SettingsLoader], plugins: Plugins, stack: AsyncExitStack) -> Listener:
    """Start the backend, and import the web framework while it loads. Then load the model's files."""
    [loader] = loaders
    async with AsyncExitStack() as starting:
        with report_progress() as on_progress:
            backend = loader.new_backend(on_progress, loader.adapters.loaded)
            starting.push_async_callback(_stop, partial(stop_backend, backend))
            started, create_listener = await asyncio.gather(
                loader.start(backend), asyncio.to_thread(_import_listener)
            )
        listener, pool = create_listener(loaders, plugins, started)
        starting.pop_all()  # the pool stops the backend from now on
    stack.push_async_callback(_stop, pool.close)
    return listener


async def _start_several(
    loaders: Sequence[SettingsLoader], plugins: Plugins, stack: AsyncExitStack
) -> Listener:
    """Load the models that are pinned. The others are loaded on demand."""
    create_listener = await asyncio.to_thread(_import_listener)
    listener, pool = create_listener(loaders, plugins, None)
    stack.push_async_callback(_stop, pool.close)
    for model in pool.models:
        if model.pinned:
            await _load_pinned(pool, model)
    return listener


async def _load_pinned(pool: ModelPool[AppState], model: Model[AppState]) -> None:
    from fllm_api.models.errors import ModelUnavailable

    try:
        await pool.load(model)
    except ModelUnavailable as error:
        raise ModelError(f"{model.name}: {model.error or error.detail}") from error


def _import_listener() -> CreateListener:
    from fllm_api.cli.assembly import create_listener

    return create_listener


async def _listen(
    listener: Listener, sockets: list[socket.socket], interrupted: asyncio.Event, *, watchdog: bool
) -> None:
    allow_address_reuse(sockets)
    serving = asyncio.create_task(listener.serve(sockets))
    waiting = asyncio.create_task(interrupted.wait())
    with watch_event_loop(asyncio.get_running_loop()) if watchdog else nullcontext():
        await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        listener.drain()
        await serving


async def _run_unless_interrupted(interrupted: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of ``work``, or ``None`` if it is interrupted first."""
    working = asyncio.create_task(work)
    waiting = asyncio.create_task(interrupted.wait())
    await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.wait([working])
    return None


def _interrupt_event() -> asyncio.Event:
    """Return an event that the first SIGINT or SIGTERM sets. The second one exits at once."""
    interrupted = asyncio.Event()

    def handle(number: int) -> None:
        if interrupted.is_set():
            os._exit(128 + number)
        interrupted.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, handle, number)
    return interrupted


def _announce(models: Sequence[Settings], sockets: list[socket.socket], started_at: float) -> None:
    # What is loaded stays. A full pass of the garbage collector over it would stop the event loop for 50 ms.
    gc.freeze()
    server = models[0].server
    names = ", ".join(each.server.served_model_name for each in models)
    url = server_url(server.host, sockets, "https" if server.tls else "http")
    click.echo(f"furiosa-llm: serving {names} on {url} (ready in {time.monotonic() - started_at:.1f} s)")
    return_freed_memory()
    unmap_idle_files()
