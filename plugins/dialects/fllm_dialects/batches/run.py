"""Run the requests of one batch, from the check of its file to its last line."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Container, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from fllm import BACKGROUND_PRIORITY, InternalResponse, RunningServer
from fllm.concurrency.round_robin_semaphore import RoundRobinSemaphore
from fllm_dialects.batches.batch_store import BatchStore
from fllm_dialects.batches.contents import FILE_BYTES, Contents, size_of
from fllm_dialects.batches.input_file import InputChecks, check_input, decode_line, read_lines
from fllm_dialects.batches.journal import Journal
from fllm_dialects.batches.options import BatchOptions
from fllm_dialects.batches.protocol import (
    Batch,
    BatchError,
    BatchErrors,
    BatchStatus,
    FileObject,
    InputLine,
    LineError,
    LineResponse,
    OutputLine,
    RequestCounts,
    StoredBatch,
)
from fllm_dialects.batches.upload_fields import RESULT_PURPOSE

BUSY = frozenset({429, 503})
"""Status codes after which a request is sent again: the server or its client has no room now."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before a request is sent again. The time doubles with each attempt."""
CHECKED_LINE_BYTES = 2**40
"""No limit: the lines have been checked, perhaps by a server with other options."""
LINES_AT_ONCE = 256
"""Lines that are written together for requests that did not run."""

Interruption = Literal["cancelled", "expired", "stopped"]
"""Why a batch ends before its last line; ``stopped``: the server ends, and the next one continues."""
UNFINISHED: dict[Interruption, LineError] = {
    "cancelled": LineError(
        code="batch_cancelled", message="The batch was cancelled before this request ended."
    ),
    "expired": LineError(
        code="batch_expired",
        message="This request could not be executed before the completion window expired.",
    ),
}


ENDS: dict[Interruption, BatchStatus] = {"cancelled": "cancelled", "expired": "expired"}

log = logging.getLogger("fllm.batches")


class BatchTools(Struct, frozen=True, kw_only=True):
    """What all batches share."""

    store: BatchStore
    contents: Contents
    server: RunningServer
    options: BatchOptions
    places: RoundRobinSemaphore
    """One unit for each request that may run."""
    checking: asyncio.Lock
    """Held while a file is checked: one at a time."""
    clock: Callable[[], float]


class BatchRun:
    """One batch while it runs. Everything that it writes is written by one task, which is never cancelled."""

    def __init__(self, stored: StoredBatch, tools: BatchTools) -> None:
        self.stored = stored
        self._tools = tools
        contents = tools.contents
        self._results = [contents.path(stored.owner, each) for each in (stored.output_id, stored.error_id)]
        self._journal = Journal(*self._results)
        self._received: list[OutputLine] = []
        """Lines of requests that have ended, to be written."""
        self._counted = sum(map(size_of, self._results))
        """Bytes of the files that are counted as what the client keeps."""
        self._interruption: Interruption | None = None
        self._wake = asyncio.Event()
        self._status_lock = asyncio.Lock()

    @property
    def batch(self) -> Batch:
        """The batch with its present counts."""
        journal, batch = self._journal, self.stored.batch
        counts = replace(batch.request_counts, completed=journal.completed, failed=journal.failed)
        return replace(batch, request_counts=counts)

    def interrupt(self, why: Interruption) -> None:
        """End the batch after what is being written, without waiting for requests. The first reason holds."""
        self._interruption = self._interruption or why
        self._wake.set()

    async def cancel(self) -> bool:
        """Cancel the batch; return whether it was still possible."""
        if not await self._set("cancelling", after=("validating", "in_progress")):
            return False
        self.interrupt("cancelled")
        return True

    async def run(self) -> None:
        """Run until the batch has ended or the server stops. Raise `StoreError`."""
        try:
            done = await asyncio.to_thread(self._journal.open)
            self._count_files()
            if not self.stored.batch.request_counts.total and not await self._check():
                return
            interruption = await self._run_requests(done)
            if interruption != "stopped":
                await self._end(interruption)
        except OSError as error:
            log.error("batch %s failed", self.batch.id, exc_info=error)
            await self._fail([BatchError(code="storage_error", message=_storage_problem(error))])
        finally:
            await asyncio.to_thread(self._journal.close)

    async def _check(self) -> bool:
        """Check the input file; return whether the batch goes on."""
        stored, options = self.stored, self._tools.options
        checks = InputChecks(
            endpoint=stored.batch.endpoint, max_lines=options.max_lines, max_line_bytes=options.max_line_bytes
        )
        async with self._tools.checking:
            if self._interruption == "stopped":
                return False
            checked = await asyncio.to_thread(check_input, self._input, checks)
        if checked.errors:
            await self._fail(checked.errors)
            return False
        counts = RequestCounts(checked.total)
        if not await self._set("in_progress", after=("validating",), request_counts=counts):
            await self._set("cancelling", request_counts=counts)
        return True

    async def _run_requests(self, done: set[str]) -> Interruption | None:
        """Run all requests that are not done. Return what ended them early, if anything."""
        if self.stored.batch.status != "in_progress":
            return None
        seconds_left = self.stored.batch.expires_at - self._tools.clock()
        expiry = asyncio.get_running_loop().call_later(max(seconds_left, 0), self.interrupt, "expired")
        requests = asyncio.create_task(self._send_all(done))
        requests.add_done_callback(lambda _: self._wake.set())
        try:
            await self._collect(requests)
        finally:
            expiry.cancel()
            requests.cancel()
            await asyncio.wait([requests])
        await self._write_received()
        return None if self._is_done else self._interruption

    async def _collect(self, requests: asyncio.Task[None]) -> None:
        """Write the lines of requests as they end, until all have ended or the batch is interrupted."""
        while not requests.done() and self._interruption is None:
            await self._wake.wait()
            self._wake.clear()
            await self._write_received()
        if requests.done():
            await self._write_received()
            requests.result()

    async def _send_all(self, done: set[str]) -> None:
        """Send the requests that are not done, a few at the same time. Raise `OSError`."""
        limit = asyncio.Semaphore(self._tools.options.concurrency)
        lines = read_lines(self._input, CHECKED_LINE_BYTES)
        problem: OSError | None = None
        async with asyncio.TaskGroup() as group:
            try:
                while line := await asyncio.to_thread(_next_line, lines, done):
                    await limit.acquire()
                    group.create_task(self._send(line)).add_done_callback(lambda _: limit.release())
            except OSError as error:
                problem = error
        if problem is not None:  # the file cannot be read; those that were sent have ended
            raise problem

    async def _send(self, line: InputLine) -> None:
        """Send one request, again and again while the server or the client has no room for it."""
        wait = FIRST_WAIT
        while True:
            async with self._tools.places.hold(self.stored.owner):
                response = await self._call(line)
            if response.status not in BUSY:
                break
            await asyncio.sleep(wait * random.uniform(0.5, 1))
            wait = min(2 * wait, LONGEST_WAIT)
        self._received.append(_output_line(line, response))
        self._wake.set()

    async def _call(self, line: InputLine) -> InternalResponse:
        stored = self.stored
        return await self._tools.server.call(
            line.method,
            line.url,
            bytes(line.body),
            client=stored.client,
            owner=stored.owner,
            priority=BACKGROUND_PRIORITY,
        )

    async def _write_received(self) -> None:
        lines, self._received = self._received, []
        if lines:
            await self._write(lines)

    async def _write(self, lines: list[OutputLine]) -> None:
        try:
            await asyncio.to_thread(self._journal.append, lines)
        finally:
            self._count_files()

    async def _end(self, interruption: Interruption | None) -> None:
        """Give every request a line, and the batch its files and its last status."""
        if self.stored.batch.status == "cancelling" or (
            interruption is None and not await self._set("finalizing", after=("in_progress", "finalizing"))
        ):
            interruption = "cancelled"
        if interruption in UNFINISHED and not self._is_done:
            await self._write_unfinished(UNFINISHED[interruption])
        last: BatchStatus = "completed" if interruption is None else ENDS[interruption]
        await self._set(last, **await self._publish())

    async def _write_unfinished(self, error: LineError) -> None:
        """Write an error for each request that is not done."""
        done = await asyncio.to_thread(self._journal.open)
        lines = read_lines(self._input, CHECKED_LINE_BYTES)
        while chunk := await asyncio.to_thread(_next_lines, lines, done):
            await self._write(
                [OutputLine(id=_new_id(), custom_id=each.custom_id, error=error) for each in chunk]
            )

    async def _fail(self, errors: list[BatchError]) -> None:
        """End the batch with errors and the results that it has."""
        if self.stored.batch.status == "cancelling":
            await self._set("cancelled", **await self._publish())
        else:
            await self._set("failed", errors=BatchErrors(data=errors), **await self._publish())

    async def _publish(self) -> dict[str, Any]:
        """Add the files that are not empty to those of the client; return their ids by field."""
        stored, now = self.stored, int(self._tools.clock())
        ttl = stored.output_ttl or self._tools.options.file_ttl
        fields = {}
        for kind, file_id, size in (
            ("output", stored.output_id, self._journal.output.size),
            ("error", stored.error_id, self._journal.errors.size),
        ):
            if not size:
                continue
            file = FileObject(
                id=file_id,
                bytes=size,
                created_at=now,
                expires_at=now + ttl if ttl else None,
                filename=f"{stored.batch.id}_{kind}.jsonl",
                purpose=RESULT_PURPOSE,
            )
            await self._tools.store.put_file(stored.owner, file)
            fields[f"{kind}_file_id"] = file_id
        return fields

    async def _set(
        self, status: BatchStatus, *, after: Container[BatchStatus] | None = None, **fields: Any
    ) -> bool:
        """Store a new status with its time; return False if the present one is none of ``after``.

        Raise `StoreError`, and keep the present status.
        """
        async with self._status_lock:
            if after is not None and self.stored.batch.status not in after:
                return False
            times = {f"{status}_at": int(self._tools.clock())}
            stored = replace(self.stored, batch=replace(self.batch, status=status, **times, **fields))
            await self._tools.store.put_batch(stored)
            self.stored = stored
            return True

    @property
    def _input(self) -> Path:
        return self._tools.contents.path(self.stored.owner, self.stored.batch.input_file_id)

    @property
    def _is_done(self) -> bool:
        return self._journal.done == self.stored.batch.request_counts.total

    def _count_files(self) -> None:
        """Add what the files have grown by to the bytes that the client keeps."""
        size = sum(
            file.size + FILE_BYTES for file in (self._journal.output, self._journal.errors) if file.size
        )
        self._tools.contents.count(self.stored.owner, size - self._counted)
        self._counted = size


def _next_line(lines: Iterator[tuple[int, bytes | None]], done: set[str]) -> InputLine | None:
    """Return the next request that is not done. The file has been checked."""
    for _, text in lines:
        assert text is not None, "the file has been checked"
        if (line := decode_line(text)).custom_id not in done:
            return line
    return None


def _next_lines(lines: Iterator[tuple[int, bytes | None]], done: set[str]) -> list[InputLine]:
    """Return the next requests that are not done."""
    return list(islice(iter(lambda: _next_line(lines, done), None), LINES_AT_ONCE))


def _output_line(line: InputLine, response: InternalResponse) -> OutputLine:
    body = _one_line(response.body)
    shown = LineResponse(status_code=response.status, request_id=response.request_id, body=body)
    return OutputLine(id=_new_id(), custom_id=line.custom_id, response=shown)


def _one_line(body: bytes) -> Raw:
    """Return JSON without line breaks. A body that is not JSON becomes a string."""
    try:
        if b"\n" not in body:
            return msgspec.json.decode(body, type=Raw)
        return Raw(msgspec.json.encode(msgspec.json.decode(body)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Raw(msgspec.json.encode(body.decode("utf-8", "replace")))


def _new_id() -> str:
    return f"batch_req_{uuid.uuid4().hex}"


def _storage_problem(error: OSError) -> str:
    return f"the files of the batch can't be read or written: {error.strerror}"
