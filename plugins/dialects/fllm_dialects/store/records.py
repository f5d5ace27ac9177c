"""Records of a store, and what a transaction can do with them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Literal

import aiosqlite
import msgspec
from msgspec import Struct, structs

from fllm_dialects.store.errors import StoreFull, StoreUnavailable
from fllm_dialects.store.sealing import BrokenSeal, Seal
from fllm_dialects.store.settings import StoreSettings

ROW_BYTES = 256
"""What a record occupies in addition to its body, about."""
_INLINE_BYTES = 1 << 20
"""Maximum size of a body that is encrypted in the event loop; it takes about 1 ms."""
ROWS_AT_ONCE = 256
"""How many records are read or written before the event loop does other work."""
_COLUMNS = "owner, parent, id, kind, position, created, expires, state, server, body"
_PUT = """
    INSERT INTO records (owner, parent, id, kind, created, expires, state, server, body, size, position)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,
        (SELECT coalesce(max(position), -1) + 1 FROM records WHERE ?2 != '' AND owner = ?1 AND parent = ?2)
    WHERE ?2 = '' OR EXISTS (
        SELECT 1 FROM records
        WHERE owner = ?1 AND parent = '' AND id = ?2 AND (expires IS NULL OR expires > ?11)
    )
    ON CONFLICT DO UPDATE SET kind = excluded.kind, expires = excluded.expires, state = excluded.state,
        server = excluded.server, size = excluded.size, body = excluded.body
"""
"""Stores a row if its parent exists, as the last child if it is a new one."""


_OLDEST = """
    SELECT owner, id, size + coalesce((
        SELECT sum(size) FROM records AS part WHERE part.owner = records.owner AND part.parent = records.id
    ), 0) FROM records WHERE owner = ? AND expires IS NOT NULL ORDER BY expires LIMIT ?
"""
"""Selects what was not used for longest, with the sizes of whole records."""
EVICTED_AT_ONCE = 100


class Record(Struct, frozen=True):
    """A record. Only its owner finds it. ``body`` is what the dialect keeps, and the only encrypted field."""

    id: str
    owner: str
    kind: str
    body: bytes
    parent: str = ""
    """The id of the record that this one is a part of: it is deleted with it."""
    position: int = 0
    """Its place below its parent. It is computed when the record is stored."""
    created: float = 0.0
    """Unix time in seconds; 0 means now."""
    expires: float | None = None
    """Unix time in seconds. It is computed when the record is stored: see `Records.put_all`."""
    state: str = ""
    server: str = ""
    """The server that works on it, `Database.server` or empty. It is not deleted."""


class Page(Struct, frozen=True):
    """What part of a list is requested: ``limit`` records after (or before) the one with that id."""

    limit: int
    order: Literal["asc", "desc"] = "asc"
    after: str = ""
    before: str = ""


class Records:
    """The records of a file, within one transaction or one read."""

    def __init__(
        self,
        connection: aiosqlite.Connection,
        seal: Seal,
        settings: StoreSettings,
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._seal = seal
        self._settings = settings
        self._clock = clock
        self._stored: set[tuple[str, str]] = set()
        """What the transaction stored: owners and ids of records without a parent."""

    async def get(self, kind: str, record_id: str, owner: str, *, parent: str = "") -> Record | None:
        """Return a record, or ``None`` if it does not exist, has expired or belongs to another owner."""
        rows = await self._rows(
            f"SELECT {_COLUMNS} FROM records WHERE owner = ? AND parent = ? AND id = ? AND kind = ?"
            " AND (expires IS NULL OR expires > ?)",
            (owner, parent, record_id, kind, self._clock()),
        )
        return await self._record(rows[0]) if rows else None

    async def put(self, record: Record) -> bool:
        """Store a record as `put_all` does."""
        return await self.put_all([record])

    async def put_all(self, records: Sequence[Record]) -> bool:
        """Store records, each in place of an earlier one with the same id. Return whether all parents exist.

        Parents come first; a new child is the last one of its parent. A record without a parent and a server
        expires after the TTL. If all records exceed the limit of the store, others are deleted before the
        transaction ends: of the owner with the most bytes, those that were not used for longest.

        Raise `StoreFull` if one is too large. The transaction raises it, too, if all space is in use.
        """
        rows: list[tuple[Any, ...]] = []
        for record in records:
            rows.append(await self._row(record))
            if len(rows) % ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        self._stored |= {(record.owner, record.parent or record.id) for record in records}
        async with self._connection.executemany(_PUT, rows) as cursor:
            return cursor.rowcount == len(rows)

    async def append(self, records: Sequence[Record]) -> bool:
        """Store children of one parent as `put_all` does; its time to live starts anew."""
        if not records:
            return True
        stored = await self.put_all(records)
        await self.touch([records[0].parent], records[0].owner)
        return stored

    async def children(
        self, parent: str, owner: str, page: Page | None = None, *, kinds: Sequence[str] = ()
    ) -> list[Record] | None:
        """Return the children of a record in order, or those of some kinds: all, or a page.

        Return ``None`` if the record after or before which the page starts does not exist.
        """
        rows = await self._children(_COLUMNS, parent, owner, page, kinds)
        return None if rows is None else await self._records(rows)

    async def child_sizes(
        self, parent: str, owner: str, page: Page | None = None, *, kinds: Sequence[str] = ()
    ) -> list[int] | None:
        """Return the sizes of the bodies of what `children` returns, in bytes, without reading them."""
        rows = await self._children("length(body)", parent, owner, page, kinds)
        return None if rows is None else [size for (size,) in rows]

    async def size_of_children(self, parents: Iterable[str], owner: str, *, kinds: Sequence[str] = ()) -> int:
        """Return what the children of these records, or those of some kinds, occupy in bytes."""
        where, values = _below(parents, owner, kinds)
        [[size]] = await self._rows(f"SELECT coalesce(sum(size), 0) FROM records WHERE {where}", values)
        return int(size)

    async def children_of(
        self, parents: Iterable[str], owner: str, *, kinds: Sequence[str] = ()
    ) -> dict[str, list[Record]]:
        """Return the children of each of these records that has some, as `children` does."""
        where, values = _below(parents, owner, kinds)
        rows = await self._rows(
            f"SELECT {_COLUMNS} FROM records WHERE {where} ORDER BY parent, position, id", values
        )
        return {parent: list(each) for parent, each in groupby(await self._records(rows), _parent)}

    async def find_children(self, record_ids: Iterable[str], owner: str) -> dict[str, Record]:
        """Return the children of any record with these ids, by id; also of one that has just expired."""
        rows = await self._rows(
            f"SELECT {_COLUMNS} FROM records INDEXED BY records_by_id"
            " WHERE owner = ? AND id IN (SELECT value FROM json_each(?)) AND parent != '' GROUP BY id",
            (owner, _json_list(record_ids)),
        )
        return {record.id: record for record in await self._records(rows)}

    async def owned(self, kind: str, owner: str, page: Page | None = None) -> list[Record] | None:
        """Return the records of a kind that have no parent, by age: all, or a page. Return as `children`."""
        where = "owner = ? AND parent = '' AND kind = ? AND (expires IS NULL OR expires > ?)"
        rows = await self._page(_COLUMNS, where, (owner, kind, self._clock()), ("created", "id"), page)
        return None if rows is None else await self._records(rows)

    async def delete(self, kind: str, record_id: str, owner: str, *, parent: str = "") -> bool:
        """Delete a record and its children; return whether it existed."""
        deleted = await self._execute(
            "DELETE FROM records WHERE owner = ? AND parent = ? AND id = ? AND kind = ?"
            " AND (expires IS NULL OR expires > ?)",
            (owner, parent, record_id, kind, self._clock()),
        )
        if deleted and not parent:
            await self._delete_children([(owner, record_id)])
        return bool(deleted)

    async def touch(self, record_ids: Iterable[str], owner: str) -> None:
        """Start the time to live of records anew."""
        now = self._clock()
        rows = [(now + self._settings.ttl, owner, record_id, now) for record_id in record_ids]
        await self._connection.executemany(
            "UPDATE records SET expires = ? WHERE owner = ? AND parent = '' AND id = ? AND expires > ?", rows
        )

    async def claimed(self, kind: str, server: str) -> list[Record]:
        """Return the records of a kind that a server works on, of all owners."""
        rows = await self._rows(
            f"SELECT {_COLUMNS} FROM records WHERE server != '' AND server = ? AND kind = ?", (server, kind)
        )
        return await self._records(rows)

    async def claim(self, kind: str, server: str, *, by: str) -> list[Record]:
        """Give the records of a kind that one server works on to another; return them, of all owners."""
        claimed = await self.claimed(kind, server)
        await self._execute("UPDATE records SET server = ? WHERE server = ? AND kind = ?", (by, server, kind))
        return [structs.replace(record, server=by) for record in claimed]

    async def servers(self) -> list[str]:
        """Return the servers that work on records."""
        rows = await self._rows("SELECT DISTINCT server FROM records WHERE server != ''", ())
        return [server for (server,) in rows]

    async def expire(self, most: int) -> int:
        """Delete records that have expired, at most that number; return how many were deleted."""
        rows = await self._rows(
            "SELECT owner, id FROM records WHERE expires <= ? ORDER BY expires LIMIT ?", (self._clock(), most)
        )
        await self._delete(rows)
        return len(rows)

    async def bytes_used(self, owner: str | None = None) -> int:
        """Return the size of all records, or of those of an owner."""
        where, values = ("", ()) if owner is None else (" WHERE owner = ?", (owner,))
        [[total]] = await self._rows(f"SELECT coalesce(sum(bytes), 0) FROM usage{where}", values)
        return int(total)

    async def _row(self, record: Record) -> tuple[Any, ...]:
        if len(record.body) > (most := min(self._settings.max_record_bytes, self._settings.max_bytes // 2)):
            raise StoreFull(detail=f"{len(record.body)} bytes are too many to store; the maximum is {most}")
        now = self._clock()
        body = await self._run(self._seal.close, record.body, context_of(record))
        return (
            *(record.owner, record.parent, record.id, record.kind, record.created or now),
            None if record.parent or record.server else now + self._settings.ttl,
            *(record.state, record.server, body, len(body) + ROW_BYTES, now),
        )

    def begin(self) -> None:
        """Begin a transaction."""
        self._stored.clear()

    async def make_room(self) -> None:
        """Delete records until the others fit, but none that this transaction stored.

        Raise `StoreFull`, also instead of deleting records of an owner that has less than one of those for
        which this transaction stored something: then one that keeps it all in use harms no other.
        """
        stored = self._stored
        writers = {owner for owner, _ in stored}
        while stored and (excess := await self.bytes_used() - self._settings.max_bytes) > 0:
            rows: list[tuple[str, str]] = []
            usage = await self._rows("SELECT owner, bytes FROM usage ORDER BY bytes DESC", ())
            for (owner, size), (_, next_size) in zip(usage, [*usage[1:], ("", 0)], strict=True):
                oldest = await self._rows(_OLDEST, (owner, len(stored) + EVICTED_AT_ONCE))
                # Until it has less than the next one; if all have the same, a part from each.
                surplus = min(excess, max(size - next_size, excess // len(usage)))
                rows = _first((row for row in oldest if tuple(row[:2]) not in stored), surplus)
                if rows or owner in writers:
                    break
            if not rows:
                raise StoreFull(detail="the store of this server is full, and all that it keeps is in use")
            await self._delete(rows)

    async def _children(
        self, columns: str, parent: str, owner: str, page: Page | None, kinds: Sequence[str]
    ) -> list[sqlite3.Row] | None:
        where = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        return await self._page(
            columns, f"owner = ? AND parent = ?{where}", (owner, parent, *kinds), ("position", "id"), page
        )

    async def _page(
        self, columns: str, where: str, values: tuple[Any, ...], keys: tuple[str, str], page: Page | None
    ) -> list[sqlite3.Row] | None:
        page = page or Page(limit=-1)
        place = ", ".join(keys)
        bounds: list[Any] = []
        condition = where
        for start, later in ((page.after, page.order == "asc"), (page.before, page.order == "desc")):
            if start:
                rows = await self._rows(
                    f"SELECT {place} FROM records WHERE {where} AND id = ?", (*values, start)
                )
                if not rows:
                    return None
                condition += f" AND ({place}) {'>' if later else '<'} (?, ?)"
                bounds += rows[0]
        order = ", ".join(f"{key} {page.order}" for key in keys)
        return await self._rows(
            f"SELECT {columns} FROM records WHERE {condition} ORDER BY {order} LIMIT ?",
            (*values, *bounds, page.limit),
        )

    async def _delete(self, rows: Iterable[Sequence[Any]]) -> None:
        keys = [tuple(row) for row in rows]
        await self._connection.executemany(
            "DELETE FROM records WHERE owner = ? AND parent = '' AND id = ?", keys
        )
        await self._delete_children(keys)

    async def _delete_children(self, keys: Sequence[tuple[str, str]]) -> None:
        await self._connection.executemany("DELETE FROM records WHERE owner = ? AND parent = ?", keys)

    async def _rows(self, sql: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        return list(await self._connection.execute_fetchall(sql, values))

    async def _execute(self, sql: str, values: Sequence[Any]) -> int:
        async with self._connection.execute(sql, values) as cursor:
            return cursor.rowcount

    async def _records(self, rows: Sequence[sqlite3.Row]) -> list[Record]:
        records: list[Record] = []
        for row in rows:
            records.append(await self._record(row))
            if len(records) % ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return records

    async def _record(self, row: sqlite3.Row) -> Record:
        owner, parent, record_id, kind, position, created, expires, state, server, body = row
        record = Record(record_id, owner, kind, b"", parent, position, created, expires, state, server)
        try:
            return structs.replace(record, body=await self._run(self._seal.open, body, context_of(record)))
        except BrokenSeal as error:
            raise StoreUnavailable(
                detail=f"the stored {kind} {record_id} was changed and cannot be read"
            ) from error

    async def _run(self, work: Callable[[bytes, bytes], bytes], body: bytes, context: bytes) -> bytes:
        if len(body) <= _INLINE_BYTES:
            return work(body, context)
        return await asyncio.to_thread(work, body, context)


def _below(parents: Iterable[str], owner: str, kinds: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the condition of the children of these records, and its values."""
    where = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
    condition = f"owner = ? AND parent IN (SELECT value FROM json_each(?)){where}"
    return condition, (owner, _json_list(parents), *kinds)


def _parent(record: Record) -> str:
    return record.parent


def _json_list(values: Iterable[str]) -> str:
    return msgspec.json.encode(list(values)).decode()


def _first(rows: Iterable[Sequence[Any]], size: int) -> list[tuple[str, str]]:
    """Return the owners and ids of the first records that have a size together, at least of one."""
    chosen: list[tuple[str, str]] = []
    for owner, record_id, own_size in rows:
        chosen.append((owner, record_id))
        size -= own_size
        if size <= 0:
            break
    return chosen


def context_of(record: Record) -> bytes:
    """Return what the seal of a record is bound to."""
    return msgspec.json.encode((record.owner, record.parent, record.id, record.kind))
