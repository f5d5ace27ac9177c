"""``--reload``: import the code of plugins again when its files change, while the model stays loaded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from litestar import Litestar
from litestar.types import LifeSpanReceive, LifeSpanScope, LifeSpanSend, Receive, Scope, Send
from msgspec import Struct

from fllm.containment import contained
from fllm.errors import format_error
from fllm.plugins.source_files import PluginSources

POLL_SECONDS = 0.5
"""Seconds between two looks at the files. It takes microseconds for each, and works on every file system."""
DRAIN_SECONDS = 10.0
"""Seconds that requests in flight may take until the resources of the old plugins are closed."""


log = logging.getLogger("fllm.server")


class NewApp(Struct, frozen=True):
    """An application with the new code of plugins."""

    app: Litestar
    activate: Callable[[], None]
    """Makes requests use what belongs to it."""
    undo: Callable[[], None]
    """Makes requests use what the old application had."""


Build = Callable[[], Awaitable[NewApp]]
"""Loads the plugins, and returns an application with them. Raises what is wrong."""


class _Lifespan:
    """The resources of an application, which one task opens and closes."""

    def __init__(self, app: Litestar) -> None:
        self._app = app
        self._opened = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the resources. Raise the error if that fails."""
        self._task = asyncio.create_task(self._run())
        opened = asyncio.create_task(self._opened.wait())
        await asyncio.wait([self._task, opened], return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        if self._task.done():
            try:
                await self._task
            except ExceptionGroup as failures:  # Litestar uses a task group
                raise failures.exceptions[0] from None

    async def stop(self) -> None:
        """Close them."""
        self._closing.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        async with self._app.lifespan():
            self._opened.set()
            await self._closing.wait()


class ReloadableApp:
    """An application that is built again with the new code of plugins.

    Requests wait while it is replaced. If the new code has an error, the old application goes on.
    """

    def __init__(self, app: Litestar, sources: PluginSources, build: Build) -> None:
        self._app = app
        self._sources = sources
        self._build = build
        self._lifespan = _Lifespan(app)
        self._open = asyncio.Event()
        self._open.set()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        """Handle one request, or the events of startup and shutdown."""
        if scope["type"] == "lifespan":
            await self._run(cast(Any, receive), cast(Any, send))
            return
        await self._open.wait()
        self._in_flight += 1
        self._idle.clear()
        try:
            await self._app(cast(Any, scope), cast(Any, receive), cast(Any, send))
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def reload(self) -> None:
        """Replace the application by one with the new code, if that has no error."""
        modules = self._sources.forget_modules()
        errors: list[BaseException] = []
        with contained(errors.append):
            await self._replace(await self._build())
        if errors:
            self._sources.restore_modules(modules)
            log.error("plugins are not reloaded, the old code goes on: %s", format_error(errors[0]))
        else:
            log.info("plugins are reloaded: %s", ", ".join(sorted(self._sources.names)))

    async def _replace(self, new: NewApp) -> None:
        self._open.clear()
        try:
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._idle.wait()
            except TimeoutError:
                log.warning("%d requests go on with the old code of plugins", self._in_flight)
            await self._lifespan.stop()
            try:
                new.activate()
                await self._start(new.app)
            except Exception:
                new.undo()
                await self._start(self._app)
                raise
            self._app = new.app
        finally:
            self._open.set()

    async def _start(self, app: Litestar) -> None:
        self._lifespan = _Lifespan(app)
        await self._lifespan.start()

    async def _run(self, receive: LifeSpanReceive, send: LifeSpanSend) -> None:
        """Run the lifespan protocol of ASGI."""
        await receive()
        try:
            await self._start(self._app)
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": format_error(error)})
            raise
        async with self._watching():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await self._lifespan.stop()
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _watch(self) -> None:
        loaded = self._sources.snapshot()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = self._sources.snapshot()
            if now == loaded:
                continue
            await asyncio.sleep(POLL_SECONDS)  # an editor may write several files
            if self._sources.snapshot() == now:
                loaded = now
                await self.reload()
