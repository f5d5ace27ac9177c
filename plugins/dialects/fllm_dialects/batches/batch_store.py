"""The records of files and batches, in a database that survives the server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from fllm_dialects.batches.protocol import ENDED, FileObject, StoredBatch
from fllm_dialects.store import Database, Page, Record, StoreUnavailable

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
        """Delete the record of a file; return whether it existed."""
        return await self._database.write(lambda records: records.delete(FILE, file_id, owner))

    async def put_batch(self, stored: StoredBatch) -> None:
        """Store a batch. Until it has ended, this server works on it."""
        server = "" if stored.batch.status in ENDED else self._database.server
        body = msgspec.json.encode(stored)
        await self._put(Record(stored.batch.id, stored.owner, BATCH, body, server=server))

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
