"""Run a server: start the backend, listen, drain, stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from fllm.concurrency.timeout_executor import TaskTimeout, TimeoutExecutor
from fllm.engine_host import EngineHost
from fllm.errors import ModelError
from fllm.interfaces import Backend, BackendContext, check_adapters
from fllm.model_check import ModelCheck
from fllm.plugins.loader import Plugins
from fllm_api.cli.bind import allow_address_reuse, server_url
from fllm_api.cli.event_loop import loop_factory
from fllm_api.cli.model_files import load_model_files
from fllm_api.cli.progress import report_progress
from fllm_api.cli.settings import Settings
from fllm_api.config import ServerConfig
from fllm_api.lifecycle.event_loop_watchdog import watch_event_loop

if TYPE_CHECKING:
    from fllm_api.listener import Listener

T = TypeVar("T")

LOAD_TIMEOUT = 300.0
"""Seconds that the tokenizer and the chat template may take to load. Their checks have shorter limits."""
BACKEND_STOP_TIMEOUT = 30.0
"""Seconds that a backend may take to stop. The `process` backend kills its engine earlier."""

log = logging.getLogger("fllm.server")


def run(settings: Settings, plugins: Plugins, sockets: list[socket.socket], started_at: float) -> None:
    """Serve until SIGINT or SIGTERM. Raise `UserError` if the user can fix what prevents the start."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(settings, plugins, sockets, started_at))


async def _serve(
    settings: Settings, plugins: Plugins, sockets: list[socket.socket], started_at: float
) -> None:
    interrupted = _interrupt_event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, settings.server)
    async with AsyncExitStack() as stack:
        with report_progress() as on_progress:
            engine_host = EngineHost(plugins.placements.load, settings.engine_network)
            stack.push_async_callback(engine_host.close)
            context = BackendContext(
                progress=on_progress,
                plugins=settings.plugin_config,
                load_grammar=plugins.grammars.load,
                engine_host=engine_host,
                load_backend=plugins.backends.load,
            )
            backend: Backend = plugins.backends.load(settings.backend)(settings.backend_config, context)
            check_adapters(backend, settings.backend_config)
            stack.push_async_callback(_stop, backend)
            started = await _run_unless_interrupted(interrupted, _start(settings, plugins, backend))
        if started is None:
            return
        listener = started()
        listener.on_ready = lambda: _announce(settings, sockets, started_at)
        await _listen(listener, sockets, interrupted)


def _reload(config: ServerConfig) -> None:
    """Read the API keys and the certificate again."""
    if config.tls is not None:
        config.tls.reload()
    if config.tls is None or config.keys.has_file:
        config.keys.reload()


async def _stop(backend: Backend) -> None:
    """Stop the backend. If it does not stop in time, exit at once: its threads could block a normal exit."""
    try:
        async with asyncio.timeout(BACKEND_STOP_TIMEOUT):
            await backend.stop()
    except TimeoutError:
        log.error("the backend did not stop within %g s; exiting", BACKEND_STOP_TIMEOUT)
        os._exit(1)


async def _start(settings: Settings, plugins: Plugins, backend: Backend) -> Callable[[], Listener]:
    """Start the backend, and import the web framework while it loads. Then load the model's files.

    Return a function that creates the HTTP server.
    """
    check = ModelCheck()
    try:
        card, create_listener, _ = await asyncio.gather(
            backend.start(), asyncio.to_thread(_import_listener), asyncio.to_thread(check.start)
        )
        load = partial(load_model_files, settings.server, plugins, card, check)
        # A thread that keeps neither a signal waiting nor the process from exiting, whatever runs in it.
        files = await TimeoutExecutor("fllm-load").run(load, time_limit=LOAD_TIMEOUT)
    except TaskTimeout:
        raise ModelError(f"the files of the model take more than {LOAD_TIMEOUT:g} s to load") from None
    finally:
        check.stop()
    return partial(create_listener, settings, plugins, backend, card, files)


def _import_listener() -> Callable[..., Listener]:
    from fllm_api.cli.assembly import create_listener

    return create_listener


async def _listen(listener: Listener, sockets: list[socket.socket], interrupted: asyncio.Event) -> None:
    allow_address_reuse(sockets)
    serving = asyncio.create_task(listener.serve(sockets))
    waiting = asyncio.create_task(interrupted.wait())
    with watch_event_loop(asyncio.get_running_loop()):
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


def _announce(settings: Settings, sockets: list[socket.socket], started_at: float) -> None:
    # What is loaded stays. A full pass of the garbage collector over it would stop the event loop for 50 ms.
    gc.freeze()
    server = settings.server
    name, url = server.served_model_name, server_url(server.host, sockets, "https" if server.tls else "http")
    click.echo(f"furiosa-llm: serving {name} on {url} (ready in {time.monotonic() - started_at:.1f} s)")
