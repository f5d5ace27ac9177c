"""The records of files and batches, in a database that survives the server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeVar

import msgspec

from fllm_dialects.batches.errors import conflict
from fllm_dialects.batches.protocol import ENDED, FileObject, StoredBatch
from fllm_dialects.store import Database, Page, Record, Records, StoreUnavailable

log = logging.getLogger("fllm.batches")

T = TypeVar("T")
FILE, BATCH = "file", "batch"
CHUNK = 100
"""Files that are looked at together."""


class BatchStore:
    """Files and batches by their owners. All methods raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_file(self, owner: str, file: FileObject) -> None:
        """Store the record of a file."""
        await self._put(Record(file.id, owner, FILE, msgspec.json.encode(file)))

    async def file(self, owner: str, file_id: str) -> FileObject | None:
        """Return the record of a file."""
        record = await self._get(FILE, owner, file_id)
        return None if record is None else _file(record)

    async def files(
        self,
        owner: str,
        shown: Callable[[FileObject], bool],
        *,
        limit: int,
        order: Literal["asc", "desc"],
        after: str,
    ) -> list[FileObject] | None:
        """Return up to ``limit`` of the files to show after the one named, by age.

        Return `None` if the one named does not exist.
        """
        found: list[FileObject] = []
        size = max(limit, CHUNK)
        while len(found) < limit:
            records = await self._page(FILE, owner, Page(size, order, after))
            if records is None:
                return None
            found += filter(shown, map(_file, records))
            if len(records) < size:
                break
            after = records[-1].id
        return found[:limit]

    async def delete_file(self, owner: str, file_id: str) -> bool:
        """Delete the record of a file; return whether it existed.

        Raise an HTTP error with 409 if a batch of any server needs it.
        """

        async def delete(records: Records) -> bool:
            if (batch_id := await _user_of(records, file_id)) is not None:
                raise conflict(f"the batch {batch_id} needs this file until it has ended", "file_id")
            return await records.delete(FILE, file_id, owner)

        return await self._database.write(delete)

    async def is_in_use(self, file_id: str) -> bool:
        """Return whether a batch of any server reads or writes a file."""
        return await self._database.read(lambda records: _user_of(records, file_id)) is not None

    async def create_batch(self, stored: StoredBatch) -> bool:
        """Store a new batch, if its file still exists; return whether it does."""

        async def create(records: Records) -> bool:
            if await records.get(FILE, stored.batch.input_file_id, stored.owner) is None:
                return False
            return await records.put(self._record(stored))

        return await self._database.write(create)

    async def put_batch(self, stored: StoredBatch) -> None:
        """Store a batch. Until it has ended, this server works on it."""
        await self._put(self._record(stored))

    def _record(self, stored: StoredBatch) -> Record:
        server = "" if stored.batch.status in ENDED else self._database.server
        return Record(stored.batch.id, stored.owner, BATCH, msgspec.json.encode(stored), server=server)

    async def batch(self, owner: str, batch_id: str) -> StoredBatch | None:
        """Return a batch."""
        record = await self._get(BATCH, owner, batch_id)
        return None if record is None else _batch(record)

    async def batches(self, owner: str, *, limit: int, after: str) -> list[StoredBatch] | None:
        """Return up to ``limit`` batches after the one named, newest first; `None` if that does not exist."""
        records = await self._page(BATCH, owner, Page(limit, "desc", after))
        return None if records is None else list(map(_batch, records))

    async def claimed_batches(self) -> list[StoredBatch]:
        """Take over the batches of servers that died or were stopped before they ended.

        Return all that this server has to run, except those that cannot be read, which are logged.
        """
        database = self._database
        await database.claim_abandoned(BATCH)
        found = []
        for record in await database.read(lambda records: records.claimed(BATCH, database.server)):
            try:
                found.append(_batch(record))
            except StoreUnavailable as error:
                log.error("a batch cannot go on: %s", error.detail)
        return found

    async def _put(self, record: Record) -> None:
        await self._database.write(lambda records: records.put(record))

    async def _get(self, kind: str, owner: str, record_id: str) -> Record | None:
        return await self._database.read(lambda records: records.get(kind, record_id, owner))

    async def _page(self, kind: str, owner: str, page: Page) -> list[Record] | None:
        return await self._database.read(lambda records: records.owned(kind, owner, page))


async def _user_of(records: Records, file_id: str) -> str | None:
    """Return the batch that reads or writes a file."""
    for server in await records.servers():
        for record in await records.claimed(BATCH, server):
            with suppress(StoreUnavailable):  # it cannot be read, so it does not run
                stored = _batch(record)
                if file_id in (stored.batch.input_file_id, stored.output_id, stored.error_id):
                    return record.id
    return None


def _file(record: Record) -> FileObject:
    return _decode(record, FileObject)


def _batch(record: Record) -> StoredBatch:
    return _decode(record, StoredBatch)


def _decode(record: Record, kind: type[T]) -> T:
    """Return what a record describes. Raise `StoreUnavailable`."""
    try:
        return msgspec.json.decode(record.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreUnavailable(detail=f"the stored {record.kind} {record.id} cannot be read") from error
