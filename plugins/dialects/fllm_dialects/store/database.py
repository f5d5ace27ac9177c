"""Transactions on the file of a store: one connection, whose writes share commits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

import aiosqlite

from fllm_dialects.store.errors import StoreError, translated
from fllm_dialects.store.records import Record, Records
from fllm_dialects.store.servers import ServerLock

T = TypeVar("T")
Work: TypeAlias = Callable[[Records], Awaitable[T]]

COMMITTED_AT_ONCE = 64
"""Maximum number of writes that share a commit, and thus an fsync."""
EXPIRED_AT_ONCE = 100
PRUNE_INTERVAL = 60.0
"""Seconds between two searches for expired records."""


class Database:
    """An open store. Create it with `open_database`, and close it.

    SQLite runs in a thread of its own (aiosqlite), so the event loop is never blocked. Other servers may use
    the same file at the same time.
    """

    def __init__(
        self, connection: aiosqlite.Connection, records: Records, lock: ServerLock | None, name: str
    ) -> None:
        self.durable = lock is not None
        """Whether records survive the server; otherwise they are in memory."""
        self._connection = connection
        self._records = records
        self._server = lock
        self._name = name
        self._lock = asyncio.Lock()
        self._waiting: deque[tuple[Work[Any], asyncio.Future[Any]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._pruner = asyncio.create_task(self._prune())

    @property
    def server(self) -> str:
        """The id of this server, for `Record.server`."""
        return self._server.server if self._server is not None else "memory"

    async def read(self, work: Work[T]) -> T:
        """Return the result of a function that only reads. Raise `StoreError`."""
        async with self._lock:
            with translated(self._name):
                return await work(self._records)

    async def write(self, work: Work[T]) -> T:
        """Return the result of a function once its changes are durable. Raise `StoreError`.

        After an error, nothing is changed. The function must have no other effects: it is called again if a
        write that shares its commit fails.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await future

    async def claim_abandoned(self, kind: str) -> list[Record]:
        """Return the records of a kind whose server died or was stopped. This server takes them over."""
        if self._server is None:
            return []
        mine = self._server.server
        dead = [server for server in await self.read(Records.servers) if self._server.is_abandoned(server)]
        return [
            record
            for server in dead
            for record in await self.write(partial(Records.claim, kind=kind, server=server, by=mine))
        ]

    async def close(self) -> None:
        """End all writes, and close the file."""
        self._pruner.cancel()
        with suppress(asyncio.CancelledError):
            await self._pruner
        if self._writer is not None:
            await self._writer
        await self._connection.close()
        if self._server is not None:
            self._server.release()

    async def _write(self) -> None:
        try:
            while self._waiting:
                count = min(COMMITTED_AT_ONCE, len(self._waiting))
                await self._commit([self._waiting.popleft() for _ in range(count)])
        finally:
            self._writer = None

    async def _commit(self, batch: list[tuple[Work[Any], asyncio.Future[Any]]]) -> None:
        """Execute writes in one transaction. If one fails, each is executed in its own."""
        try:
            async with self._transaction():
                results = [await work(self._records) for work, _ in batch]
        except Exception as error:  # noqa: BLE001  it is passed on to the caller that waits
            if len(batch) > 1:
                for each in batch:
                    await self._commit([each])
                return
            [(_, future)] = batch
            if not future.done():
                future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[None]:
        async with self._lock:
            with translated(self._name):
                self._records.begin()
                await self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    await self._records.make_room()
                    await self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:  # SQLite has not ended it by itself
                        await self._connection.execute("ROLLBACK")
                    raise

    async def _prune(self) -> None:
        """Delete expired records, in transactions that are short."""
        while True:
            try:
                while await self.write(partial(Records.expire, most=EXPIRED_AT_ONCE)) == EXPIRED_AT_ONCE:
                    pass
                async with self._lock:
                    with translated(self._name):
                        # Not `execute`, which stops after the first page.
                        await self._connection.executescript("PRAGMA incremental_vacuum(1000)")
            except StoreError:
                pass  # it is logged, and tried again
            await asyncio.sleep(PRUNE_INTERVAL)
