"""Everything that outlives a request: the store, what is in it, and the responses in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import msgspec
from litestar.exceptions import HTTPException
from litestar.response.base import ASGIResponse

from fllm import RoutesContext, Serving
from fllm_dialects.responses.options import ResponsesOptions
from fllm_dialects.responses.protocol.conversations import ItemList
from fllm_dialects.responses.protocol.responses import Response
from fllm_dialects.responses.stored.errors import invalid, not_found
from fllm_dialects.responses.stored.events import Event, framing_of_events, last_event, read_events
from fllm_dialects.responses.stored.history import History
from fllm_dialects.responses.stored.jobs import Job, Jobs
from fllm_dialects.responses.stored.response_records import (
    RESPONSE,
    RUNNING,
    get_events,
    get_input,
    get_response,
    request_cancellation,
)
from fllm_dialects.store import (
    Database,
    Page,
    PreparedStore,
    StoreError,
    StoreSettings,
    prepare_store,
)

log = logging.getLogger("fllm.responses")

FILE_NAME = "responses.sqlite3"
CHECK_INTERVAL = 2.0
"""Seconds between two looks at what other servers do."""
POLL_INTERVAL = 0.5
"""Seconds between two looks at a response that another server generates."""
MAX_CANCEL_SECONDS = 10.0
"""How long a cancelled response of another server is waited for."""


class ResponseService:
    """The stored responses of a server: opened when it starts, closed when it has stopped."""

    def __init__(self, context: RoutesContext, options: ResponsesOptions) -> None:
        """Create it. Raise `ConfigError` if the store cannot be used."""
        self._context = context
        self._options = options
        self._store: PreparedStore | None = None
        if options.store:
            folder = context.data_dir()
            path = None if folder is None else folder / FILE_NAME
            settings = StoreSettings(
                ttl=options.ttl_seconds, max_bytes=options.size_bytes, key=options.read_key()
            )
            self._store = prepare_store(path, settings)
        self.history = History(None)
        self._jobs: Jobs | None = None

    @property
    def database(self) -> Database:
        """The store. Raise an error with status 404 if the server has none."""
        if self.history.database is None:
            raise HTTPException(
                status_code=404,
                detail="this server stores nothing: its plugin `responses` has `store` = false",
            )
        return self.history.database

    @property
    def jobs(self) -> Jobs:
        """The responses in the background. Raise as `database`."""
        if self._jobs is None:
            raise HTTPException(
                status_code=404, detail="this server stores nothing, so nothing runs in the background"
            )
        return self._jobs

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Open the store, and close it at the end."""
        if self._store is None:
            yield
            return
        database = await self._store.open()
        self.history = History(database)
        self._jobs = Jobs(self.history, self._context.server, max_per_client=self._options.max_background)
        maintenance = asyncio.create_task(_maintain(self._jobs))
        try:
            yield
        finally:
            maintenance.cancel()
            await asyncio.gather(maintenance, return_exceptions=True)
            await self._jobs.close()
            await database.close()

    async def start(self, job: Job, server: Serving) -> ASGIResponse:
        """Generate a response in the background. Return it as it is now, or the stream of its events."""
        await self.jobs.start(job)
        if job.events is None:
            return json_response(job.response)
        stream: ASGIResponse = server.stream(job.stream(-1), framing_of_events())
        return stream

    async def get(self, response_id: str, owner: str) -> Response:
        """Return a response, as far as it is. Raise an error with status 404 if there is none."""
        database = self.database
        if (job := self.jobs.get(response_id, owner)) is not None:
            return job.response
        response = await database.read(lambda records: get_response(records, response_id, owner))
        if response is None:
            raise not_found("Response", response_id)
        return response

    async def input_items(self, response_id: str, owner: str, page: Page) -> ItemList:
        """Return a page of the items of a request. Raise as `get` and `get_input`."""
        await self.get(response_id, owner)
        return await self.database.read(lambda records: get_input(records, response_id, owner, page))

    async def delete(self, response_id: str, owner: str) -> None:
        """Delete a response; cancel it if it is not complete. Raise as `get`."""
        if (await self.get(response_id, owner)).status in RUNNING:
            await self.cancel(response_id, owner)
        await self.database.write(lambda records: records.delete(RESPONSE, response_id, owner))
        self.jobs.forget(response_id, owner)

    async def cancel(self, response_id: str, owner: str) -> Response:
        """Cancel a response in the background; return it once it has ended. Raise as `get`, or with 400."""
        response = await self.get(response_id, owner)
        if not response.background:
            raise invalid("Cannot cancel a synchronous response: it was not created with `background`: true.")
        if (job := self.jobs.get(response_id, owner)) is not None:
            job.cancel()
            await job.ended.wait()
        elif response.status in RUNNING:
            await self.database.write(lambda records: request_cancellation(records, response_id, owner))
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_CANCEL_SECONDS):
                    await self._wait(response_id, owner)
        return await self.get(response_id, owner)

    async def events(self, response_id: str, owner: str, after: int) -> AsyncGenerator[list[Event]]:
        """Return what yields the events after the one with that number. Raise as `get`, or with 400."""
        response = await self.get(response_id, owner)
        job = self.jobs.get(response_id, owner)
        if job is not None:
            streamed = job.events is not None
        else:  # the events of one that another server generates, or that was lost, are not known yet
            streamed = response.background and (
                response.status in (*RUNNING, "failed") or bool(await self._stored_events(response_id, owner))
            )
        if not streamed:
            raise invalid(
                "This response cannot be streamed: it was not created with `background` and `stream`.",
                param="stream",
            )
        return self._events(response_id, owner, after) if job is None else job.stream(after)

    async def _stored_events(self, response_id: str, owner: str) -> bytes:
        return await self.database.read(lambda records: get_events(records, response_id, owner))

    async def _events(self, response_id: str, owner: str, after: int) -> AsyncGenerator[list[Event]]:
        response = await self._wait(response_id, owner)
        stored = await self._stored_events(response_id, owner)
        if not stored:  # its server died
            yield [last_event(response, after + 1)]
            return
        for events in await read_events(stored, after):
            yield events

    async def _wait(self, response_id: str, owner: str) -> Response:
        """Return a response of another server once it has ended."""
        while (response := await self.get(response_id, owner)).status in RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(POLL_INTERVAL)
        return response


def json_response(response: Response) -> ASGIResponse:
    """Return a response as one JSON object."""
    return ASGIResponse(body=msgspec.json.encode(response), media_type="application/json")


async def _maintain(jobs: Jobs) -> None:
    while True:
        with suppress(StoreError):  # it is logged, and tried again
            await jobs.check()
        await asyncio.sleep(CHECK_INTERVAL)
