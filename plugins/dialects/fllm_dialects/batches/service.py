"""Files and batches of a server: what the routes call, and what runs between its start and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from litestar.exceptions import HTTPException

from fllm import RequestError, RunningServer
from fllm.concurrency.round_robin_semaphore import RoundRobinSemaphore
from fllm_dialects.batches.batch_store import BatchStore
from fllm_dialects.batches.contents import Contents, FileWriter
from fllm_dialects.batches.errors import conflict, not_found, storage_errors, too_many
from fllm_dialects.batches.expiry import delete_expired
from fllm_dialects.batches.form import read_form
from fllm_dialects.batches.options import BatchOptions
from fllm_dialects.batches.protocol import (
    ENDED,
    MAX_EXPIRY,
    WINDOW,
    Batch,
    BatchList,
    BatchRequest,
    DeletedFile,
    FileList,
    FileObject,
    StoredBatch,
)
from fllm_dialects.batches.run import BatchTools
from fllm_dialects.batches.runner import BatchRunner
from fllm_dialects.batches.upload_fields import PURPOSE, read_expiry
from fllm_dialects.store import StoreError, StoreSettings, open_database

NEVER = 100 * 365 * 86400
"""Seconds that records are kept which do not expire."""
MAINTENANCE_INTERVAL = 300.0
"""Seconds between two searches for expired files, and for batches of servers that have ended."""

log = logging.getLogger("fllm.batches")


class BatchService:
    """Owns the files and the batches while the server runs."""

    store: BatchStore
    contents: Contents
    runner: BatchRunner

    def __init__(
        self,
        options: BatchOptions,
        server: RunningServer,
        directory: Path | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options
        self._server = server
        self._directory = directory
        self._clock = clock

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Open the files, go on with the batches of servers that ended, and stop them at the end.

        Without a directory, everything is kept in a temporary one.
        """
        async with AsyncExitStack() as stack:
            directory = await asyncio.to_thread(self._open_contents, stack)
            path = None if directory is None else directory / "batches.sqlite3"
            database = await open_database(path, StoreSettings(ttl=self._record_ttl()), clock=self._clock)
            stack.push_async_callback(database.close)
            self.store = BatchStore(database)
            self.runner = BatchRunner(self._tools())
            stack.push_async_callback(self.runner.stop)
            await self._take_over()
            maintenance = asyncio.create_task(self._maintain())
            stack.callback(maintenance.cancel)
            yield

    def _open_contents(self, stack: AsyncExitStack) -> Path | None:
        """Open the directory of files, or a temporary one; return the first if it can be used."""
        new = partial(
            Contents, max_client=self.options.max_client_bytes, max_total=self.options.max_total_bytes
        )
        if self._directory is not None:
            try:
                self.contents = new(self._directory / "files")
            except OSError as error:
                log.warning("files and batches are lost when the server ends: %s", error)
            else:
                return self._directory
        try:
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="furiosa-llm-"))
        except OSError as error:  # there is nowhere to write: uploads are refused with a 503
            log.warning("files can't be stored: %s", error)
            self.contents = new(Path(os.devnull), create=False)
        else:
            self.contents = new(Path(temporary))
        return None

    async def _take_over(self) -> None:
        """Continue the batches of servers that have ended. After an error of the store, try again later."""
        try:
            for stored in await self.store.claimed_batches():
                if self.runner.find(stored.batch.id) is None:
                    self.runner.start(stored)
        except StoreError as error:
            log.error("batches of other servers can't go on: %s", error.detail)

    async def _maintain(self) -> None:
        """Remove expired files, and look for servers that have ended, from time to time."""
        while True:
            try:
                await delete_expired(self.store, self.contents, self._clock)
                await asyncio.sleep(MAINTENANCE_INTERVAL)
                await self._take_over()
                await self.contents.recount()
            except (OSError, HTTPException) as error:  # of the store, or a batch needs a file since just now
                log.error("files and batches can't be maintained", exc_info=error)
                await asyncio.sleep(MAINTENANCE_INTERVAL)

    async def upload(self, owner: str, content_type: str, stream: AsyncIterator[bytes]) -> FileObject:
        """Store a file that arrives as a form. Raise `RequestError`, or what `storage_errors` raises."""
        file_id, now = _new_id("file"), int(self._clock())
        with storage_errors():
            async with FileWriter(self.contents, owner, file_id, self.options.max_file_bytes) as writer:
                form = await read_form(content_type, stream, writer.write)
                ttl = read_expiry(form.fields) or self.options.file_ttl
                file = FileObject(
                    id=file_id,
                    bytes=writer.size,
                    created_at=now,
                    expires_at=now + ttl if ttl else None,
                    filename=form.filename or file_id,
                    purpose=PURPOSE,
                )
                await writer.publish()
        try:
            await self.store.put_file(owner, file)
        except StoreError:
            await asyncio.to_thread(self.contents.delete, owner, self.contents.path(owner, file_id))
            raise
        return file

    async def file(self, owner: str, file_id: str, *, param: str = "file_id") -> FileObject:
        """Return a file. Raise an HTTP error with 404."""
        file = await self.store.file(owner, file_id)
        if file is None or self._has_expired(file):
            raise not_found("file", file_id, param)
        return file

    async def files(
        self, owner: str, *, limit: int, order: Literal["asc", "desc"], after: str, purpose: str | None
    ) -> FileList:
        """Return a page of files. Raise an HTTP error with 404."""

        def is_shown(file: FileObject) -> bool:
            return purpose in (None, file.purpose) and not self._has_expired(file)

        found = await self.store.files(owner, is_shown, limit=limit + 1, order=order, after=after)
        if found is None:
            raise not_found("file", after, "after")
        page = found[:limit]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return FileList(data=page, first_id=first, last_id=last, has_more=len(found) > limit)

    async def delete_file(self, owner: str, file_id: str) -> DeletedFile:
        """Delete a file. Raise an HTTP error with 404, or with 409 if a batch needs it."""
        await self.file(owner, file_id)
        if not await self.store.delete_file(owner, file_id):
            raise not_found("file", file_id, "file_id")
        with storage_errors():
            await asyncio.to_thread(self.contents.delete, owner, self.contents.path(owner, file_id))
        return DeletedFile(id=file_id)

    async def create_batch(self, owner: str, client: str, request: BatchRequest) -> Batch:
        """Start a batch. Raise `RequestError`, or an HTTP error with 404 or 429."""
        file = await self.file(owner, request.input_file_id, param="input_file_id")
        if file.purpose != PURPOSE:
            raise RequestError(
                f"`input_file_id` is a file with the purpose {file.purpose!r}; it must be {PURPOSE!r}",
                param="input_file_id",
            )
        if self.runner.count(owner) >= self.options.max_batches:
            raise too_many(f"you have {self.options.max_batches} batches that have not ended, the maximum")
        now = int(self._clock())
        batch = Batch(
            id=_new_id("batch"),
            endpoint=request.endpoint,
            input_file_id=request.input_file_id,
            created_at=now,
            expires_at=now + WINDOW,
            metadata=request.metadata,
        )
        expiry = request.output_expires_after
        stored = StoredBatch(
            batch=batch,
            owner=owner,
            client=client,
            output_id=_new_id("file"),
            error_id=_new_id("file"),
            output_ttl=None if expiry is None else expiry.seconds,
        )
        if not await self.store.create_batch(stored):
            raise not_found("file", request.input_file_id, "input_file_id")
        self.runner.start(stored)
        return batch

    async def batch(self, owner: str, batch_id: str) -> Batch:
        """Return a batch as it is now. Raise an HTTP error with 404."""
        return self.runner.present(await self._stored_batch(owner, batch_id))

    async def batches(self, owner: str, *, limit: int, after: str) -> BatchList:
        """Return a page of batches, the newest first. Raise an HTTP error with 404."""
        found = await self.store.batches(owner, limit=limit + 1, after=after)
        if found is None:
            raise not_found("batch", after, "after")
        page = [self.runner.present(stored) for stored in found[:limit]]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return BatchList(data=page, first_id=first, last_id=last, has_more=len(found) > limit)

    async def cancel_batch(self, owner: str, batch_id: str) -> Batch:
        """End a batch early. Raise an HTTP error with 404, or with 409 if it has ended otherwise."""
        stored = await self._stored_batch(owner, batch_id)
        run = self.runner.find(batch_id)
        cancelled = await run.cancel() if run is not None else False
        batch = self.runner.present(stored) if run is None else run.batch
        if cancelled or batch.status in ("cancelling", "cancelled"):
            return batch
        reason = f"it is {batch.status}" if run or batch.status in ENDED else "another server runs it"
        raise conflict(f"the batch can't be cancelled: {reason}", "batch_id")

    async def _stored_batch(self, owner: str, batch_id: str) -> StoredBatch:
        stored = await self.store.batch(owner, batch_id)
        if stored is None:
            raise not_found("batch", batch_id, "batch_id")
        return stored

    def _has_expired(self, file: FileObject) -> bool:
        return file.expires_at is not None and file.expires_at <= self._clock()

    def _tools(self) -> BatchTools:
        return BatchTools(
            store=self.store,
            contents=self.contents,
            server=self._server,
            options=self.options,
            places=RoundRobinSemaphore(self.options.concurrency),
            checking=asyncio.Lock(),
            clock=self._clock,
        )

    def _record_ttl(self) -> int:
        """Return how long records are kept: longer than any file."""
        return max(self.options.file_ttl, MAX_EXPIRY) + WINDOW if self.options.file_ttl else NEVER


def _new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}" if kind == "file" else f"{kind}_{uuid.uuid4().hex}"
