"""The records of files and batches, in a database that survives the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from fllm_dialects.batches.protocol import ENDED, FileObject, StoredBatch
from fllm_dialects.store import Database, Page, Record

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

    async def abandoned_batches(self) -> list[StoredBatch]:
        """Take over the batches of servers that died or were stopped before they ended; return them."""
        return list(map(_batch, await self._database.claim_abandoned(BATCH)))

    async def _put(self, record: Record) -> None:
        await self._database.write(lambda records: records.put(record))

    async def _get(self, kind: str, owner: str, record_id: str) -> Record | None:
        return await self._database.read(lambda records: records.get(kind, record_id, owner))

    async def _page(self, kind: str, owner: str, page: Page) -> list[Record] | None:
        return await self._database.read(lambda records: records.owned(kind, owner, page))


def _file(record: Record) -> FileObject:
    return msgspec.json.decode(record.body, type=FileObject)


def _batch(record: Record) -> StoredBatch:
    return msgspec.json.decode(record.body, type=StoredBatch)
