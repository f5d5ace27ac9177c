"""Responses that are generated in the background, and the streams of their events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import msgspec
from litestar.exceptions import HTTPException
from msgspec import Struct
from msgspec.structs import replace

from fllm import ErrorInfo, FllmError, RequestError, RunningServer, Serving
from fllm_dialects.responses.encoder import ResponsesEncoder
from fllm_dialects.responses.new_generation import new_generation
from fllm_dialects.responses.protocol.events import ResponseEvent, StreamEvent
from fllm_dialects.responses.protocol.requests import ResponsesRequest
from fllm_dialects.responses.protocol.responses import ResponseError
from fllm_dialects.responses.stored.events import EVENTS_AT_ONCE, Event, compress, encode_events
from fllm_dialects.responses.stored.history import Context, History, StoredRequest
from fllm_dialects.responses.stored.response_records import RESPONSE, mark_failed, to_cancel
from fllm_dialects.store import StoreError, StoreUnavailable

log = logging.getLogger("fllm.responses")

PATH = "/v1/responses"
CLAIM_INTERVAL = 30.0
"""Seconds between two searches for responses of servers that have died."""
MAX_JOB_BYTES = 256 << 20
"""Size of all requests and events in memory beyond which a client with more than its share is refused."""
SIZE_STEP = 1 << 20
"""Bytes of events of one response between two looks at the size of all."""
FEW_STREAMS = 8
"""Streams of one response that receive each event at once."""
STREAM_SECONDS = 0.004
"""What each further stream adds to the time between two parts, so that many streams block nobody."""
LOST = "the server stopped before the response was complete"


class Job:
    """A response that is generated in the background."""

    def __init__(
        self,
        body: ResponsesRequest,
        context: Context,
        encoder: ResponsesEncoder,
        request: StoredRequest,
        client: str,
    ) -> None:
        self.body = body
        self.context = context
        self.encoder = encoder
        self.response = encoder.response
        """The response as far as clients know it."""
        self.request = request
        self.client = client
        self.events: list[bytes] | None = [] if body.stream else None
        """Those that were emitted; the number of each is its index."""
        self.size = 0
        """Bytes of the request, as JSON, and of its events."""
        self.is_cancelled = False
        self.task: asyncio.Task[None] | None = None
        """Generates the response."""
        self.ended = asyncio.Event()
        self._streams = 0
        self._changed = asyncio.Event()

    def publish(self, events: Iterable[Struct]) -> None:
        """Add events to the stream."""
        self.response = self.encoder.response
        if self.events is not None:
            encoded = encode_events(events)
            self.events += encoded
            self.size += sum(map(len, encoded))
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self, events: Iterable[Struct]) -> None:
        """Add the last events."""
        self.ended.set()
        self.publish(events)

    async def stream(self, after: int) -> AsyncGenerator[list[Event]]:
        """Yield the events after the one with that number, as they are emitted."""
        assert self.events is not None, "the request asked for a stream"
        position = after + 1
        self._streams += 1
        try:
            while True:
                changed, ended = self._changed, self.ended.is_set()
                while events := self.events[position : position + EVENTS_AT_ONCE]:
                    position += len(events)
                    yield list(map(Event, events))
                if ended:
                    return
                await changed.wait()
                if self._streams > FEW_STREAMS:
                    await asyncio.sleep((self._streams - FEW_STREAMS) * STREAM_SECONDS)
        finally:
            self._streams -= 1

    def cancel(self) -> None:
        """Stop the generation."""
        self.is_cancelled = True
        if self.task is not None:
            self.task.cancel()


class Jobs:
    """The responses that this server generates in the background."""

    def __init__(self, history: History, server: RunningServer, *, max_per_client: int) -> None:
        assert history.database is not None, "the server stores responses"
        self._history = history
        self._database = history.database
        self._server = server
        self._max_per_client = max_per_client
        self._jobs: dict[tuple[str, str], Job] = {}
        """By owner and id: those that run, and those that could not be stored when they had ended."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_claim = 0.0

    def get(self, response_id: str, owner: str) -> Job | None:
        """Return the job of a response; ``None``: it does not run here."""
        return self._jobs.get((owner, response_id))

    async def start(self, job: Job) -> None:
        """Store a response as queued, and generate it.

        Raise `StoreError`, or an error with status 429 or 503.
        """
        job.size = await asyncio.to_thread(_request_size, job)
        running = Counter(each.client for each in self._jobs.values() if not each.ended.is_set())
        if running[job.client] >= self._max_per_client:
            raise HTTPException(
                status_code=429,
                detail=f"{self._max_per_client} responses of this client are generated in the background: "
                "wait until one is complete",
                extra={"param": "background", "code": "rate_limit_exceeded"},
            )
        self._check_size(job)
        self._jobs[(job.request.owner, job.response.id)] = job
        # If the client leaves meanwhile, the job is stored and runs, or neither.
        await asyncio.shield(self._spawn(self._begin(job)))

    async def _begin(self, job: Job) -> None:
        owner, response_id = key = (job.request.owner, job.response.id)
        job.publish(job.encoder.queue())
        try:
            await self._history.save(job.response, job.request, server=self._database.server)
            job.task = self._server.start(
                partial(self._generate, job), client=job.client, path=PATH, owner=owner, model=job.body.model
            )
        except BaseException:
            del self._jobs[key]
            with suppress(StoreError):
                await self._database.write(lambda records: records.delete(RESPONSE, response_id, owner))
            raise
        self._spawn(self._finish(job, job.task))
        if job.is_cancelled:
            job.task.cancel()

    def _check_size(self, job: Job) -> None:
        """Raise an error with status 503 if there is no memory for a job, and its client has its share."""
        sizes = Counter({job.client: 0 if job in self._jobs.values() else job.size})
        for each in self._jobs.values():
            sizes[each.client] += each.size
        if sizes.total() > MAX_JOB_BYTES and sizes[job.client] > MAX_JOB_BYTES // len(sizes):
            raise HTTPException(
                status_code=503,
                detail="the responses of this client in the background need too much memory",
                headers={"Retry-After": "1"},
                extra={"param": "background", "code": "server_busy"},
            )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)
        return task

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a response in the background failed", exc_info=error)

    def forget(self, response_id: str, owner: str) -> None:
        """Drop a response that has ended, if it could not be stored."""
        self._jobs.pop((owner, response_id), None)

    async def close(self) -> None:
        """End what still runs."""
        for job in self._jobs.values():
            if job.task is not None:
                job.task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def check(self) -> None:
        """Cancel what other servers were asked to cancel, and mark as failed what dead ones have left.

        Store what could not be stored before. Raise `StoreError`.
        """
        if any(not job.ended.is_set() for job in self._jobs.values()):
            for record in await self._database.read(
                lambda records: to_cancel(records, self._database.server)
            ):
                if (job := self.get(record.id, record.owner)) is not None:
                    job.cancel()
        if time.monotonic() >= self._next_claim:
            self._next_claim = time.monotonic() + CLAIM_INTERVAL
            await self._end_lost()

    async def _end_lost(self) -> None:
        database = self._database
        await database.claim_abandoned(RESPONSE)
        for record in await database.read(lambda records: records.claimed(RESPONSE, database.server)):
            if self.get(record.id, record.owner) is None:
                fail = partial(
                    mark_failed,
                    response_id=record.id,
                    owner=record.owner,
                    server=database.server,
                    reason=LOST,
                )
                with suppress(StoreUnavailable):  # it cannot be read
                    await database.write(fail)
        for key, job in list(self._jobs.items()):
            if job.ended.is_set():
                await self._save(job, ())
                self._jobs.pop(key, None)

    async def _generate(self, job: Job, serving: Serving) -> None:
        generation, _ = await new_generation(
            serving, job.body, earlier=job.context.items, references=job.context.references
        )
        begun, checked = False, job.size
        async with aclosing(generation.outputs(streamed=job.events is not None)) as outputs:
            async for batch in outputs:
                if not begun:
                    begun = True
                    job.publish(job.encoder.start())
                for output in batch:
                    job.publish(job.encoder.feed(output))
                if job.size > checked + SIZE_STEP:
                    checked = job.size
                    self._check_size(job)

    async def _finish(self, job: Job, task: asyncio.Task[None]) -> None:
        await asyncio.wait([task])
        last: Sequence[StreamEvent] = ()
        is_kept = False
        try:
            last = _last_events(job, task)
            await self._save(job, last)
        except StoreError as error:
            is_kept = True  # and stored as soon as that is possible
            last = _unsaved(job, last, error.detail)
        finally:
            if not is_kept:
                del self._jobs[(job.request.owner, job.response.id)]
            job.end(last)

    async def _save(self, job: Job, last: Sequence[StreamEvent]) -> None:
        events = b"" if job.events is None else await compress([*job.events, *encode_events(last)])
        await self._history.save(job.encoder.response, job.request, is_update=True, events=events)


def _request_size(job: Job) -> int:
    return len(msgspec.json.encode((job.body, job.context.items)))


def _last_events(job: Job, task: asyncio.Task[None]) -> Sequence[StreamEvent]:
    """Return the events of the end of a response, from the end of the task that generated it."""
    if job.is_cancelled:
        return job.encoder.cancel()
    if task.cancelled():
        return job.encoder.error(ErrorInfo(LOST, "server_error"))
    if (error := task.exception()) is not None:
        return job.encoder.error(_describe(error, job.response.id))
    return job.encoder.finish()


def _unsaved(job: Job, last: Sequence[StreamEvent], reason: str) -> Sequence[StreamEvent]:
    """Return the last events of a response that cannot be stored, and so has failed."""
    event, response = last[-1], job.encoder.response
    if response.status not in ("completed", "incomplete") or not isinstance(event, ResponseEvent):
        return last
    error = ResponseError("server_error", reason)
    job.encoder.response = replace(response, status="failed", error=error, completed_at=None)
    return [replace(event, type="response.failed", response=job.encoder.response)]


def _describe(error: BaseException, response_id: str) -> ErrorInfo:
    match error:
        case RequestError():
            return ErrorInfo(error.message, "invalid_request_error", error.param, error.code)
        case HTTPException(status_code=429):
            return ErrorInfo(error.detail, "rate_limit_error")
        case HTTPException():
            return ErrorInfo(error.detail, "server_error")
        case FllmError():
            return ErrorInfo(error.message, "server_error")
        case _:
            log.error("a response in the background failed: %s", response_id, exc_info=error)
            return ErrorInfo("the server failed to process the request; see its log", "server_error")
