"""Open the file of a store: create or migrate it, check its key, move a damaged one away."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import aiosqlite
from msgspec import Struct, structs

from fllm.errors import ConfigError
from fllm_dialects.store.database import Database
from fllm_dialects.store.errors import StoreError, translated
from fllm_dialects.store.records import Records
from fllm_dialects.store.schema import APPLICATION_ID, MIGRATIONS
from fllm_dialects.store.sealing import AesSeal, BrokenSeal, NoSeal, Seal
from fllm_dialects.store.servers import ServerLock
from fllm_dialects.store.settings import StoreSettings

log = logging.getLogger("fllm.store")

BUSY_TIMEOUT = 10.0
"""Seconds that a write waits for one of another server."""
CHECK_SECONDS = 5.0
"""Maximum duration of the search for damage when a file is opened."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_KEY_CHECK = b"furiosa-llm"
_MEMORY = ":memory:"
_PRAGMAS = (
    "PRAGMA auto_vacuum = INCREMENTAL",  # the file becomes smaller after records were deleted
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a commit survives a power failure
    f"PRAGMA journal_size_limit = {16 << 20}",
    "PRAGMA secure_delete = FAST",  # zeros where records were, if that costs no further writes
)


class _Damaged(Exception):
    """The file is damaged."""


class PreparedStore(Struct, frozen=True):
    """A file that was checked and can be opened, or, without a path, a store in memory."""

    path: Path | None
    seal: Seal
    settings: StoreSettings
    clock: Callable[[], float]

    async def open(self) -> Database:
        """Open it; if that is not possible any more, open one in memory, which is logged."""
        try:
            return await self._open()
        except (StoreError, OSError) as error:
            if self.path is None:
                raise
            return await _in_memory(f"{self.path}: {error}", self.settings, self.clock)._open()

    async def _open(self) -> Database:
        lock = None if self.path is None else ServerLock(self.path)
        name = _MEMORY if self.path is None else str(self.path)
        connection: aiosqlite.Connection | None = None
        try:
            with translated(name):
                connection = await aiosqlite.connect(name, isolation_level=None, timeout=BUSY_TIMEOUT)
                for statement in (*_PRAGMAS, *(_statements(0) if self.path is None else ())):
                    await connection.execute_fetchall(statement)
        except BaseException:
            if connection is not None:
                await connection.close()
            if lock is not None:
                lock.release()
            raise
        return Database(connection, Records(connection, self.seal, self.settings, self.clock), lock, name)


async def open_database(
    path: Path | None, settings: StoreSettings, *, clock: Callable[[], float] = time.time
) -> Database:
    """Prepare and open a store. Raise `ConfigError`."""
    return await (await asyncio.to_thread(prepare_store, path, settings, clock=clock)).open()


def prepare_store(
    path: Path | None, settings: StoreSettings, *, clock: Callable[[], float] = time.time
) -> PreparedStore:
    """Check the store in a file, which only this user may read; create or migrate it.

    A damaged file is renamed, and a new one is created. If no file can be written, or ``path`` is ``None``,
    the records will be in memory. Both are logged. This blocks, for some seconds if the file is large.

    Raise `ConfigError` if the file has a newer version or another key, or is not a store.
    """
    if path is None:
        return _in_memory("there is no data directory", settings, clock, level=logging.INFO)
    try:
        return _prepare_file(path, settings, clock)
    except (sqlite3.Error, OSError, _Damaged) as error:
        return _in_memory(f"{path}: {error}", settings, clock)


def _in_memory(
    reason: str, settings: StoreSettings, clock: Callable[[], float], *, level: int = logging.WARNING
) -> PreparedStore:
    log.log(level, "stored records are in memory only, and lost when the server stops: %s", reason)
    bounded = structs.replace(settings, max_bytes=min(settings.max_bytes, settings.max_memory_bytes))
    return PreparedStore(None, NoSeal(), bounded, clock)


def _prepare_file(path: Path, settings: StoreSettings, clock: Callable[[], float]) -> PreparedStore:
    seal = NoSeal() if settings.key is None else AesSeal(settings.key)
    _make_private(path)
    try:
        _prepare(path, seal)
    except _Damaged as error:
        kept = _move_away(path)
        log.error("the store is damaged: %s (%s); it is now %s, and a new one is created", path, error, kept)
        _make_private(path)
        _prepare(path, seal)
    return PreparedStore(path, seal, settings, clock)


def _prepare(path: Path, seal: Seal) -> None:
    """Check the file and migrate it. Raise `ConfigError`, `_Damaged` or `sqlite3.Error`."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT)
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        _search_damage(connection)
        _migrate(connection, path, seal)
    except UnicodeDecodeError as error:  # a message of SQLite that quotes damaged bytes
        raise _Damaged(f"its schema cannot be read: {error}") from error
    except sqlite3.DatabaseError as error:
        if _code(error) in _DAMAGED:
            raise _Damaged(str(error)) from error
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if _code(error) != sqlite3.SQLITE_FULL or _number(connection, "PRAGMA user_version") < len(
            MIGRATIONS
        ):
            raise
        log.warning("the disk is full, so nothing can be stored at present: %s", path)
    finally:
        connection.close()


def _migrate(connection: sqlite3.Connection, path: Path, seal: Seal) -> None:
    connection.execute("BEGIN IMMEDIATE")
    version = _number(connection, "PRAGMA user_version")
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"the store {path} was written by a newer version of furiosa-llm (its version is {version}, "
            f"this one reads up to {len(MIGRATIONS)}): upgrade, or move the file away"
        )
    is_empty = _number(connection, "SELECT count(*) FROM sqlite_master") == 0
    if not is_empty and _number(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise ConfigError(
            f"{path} is a database of another program: move it away, or choose another data directory"
        )
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for statement in _statements(version):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    _check_key(connection, path, seal)
    connection.execute("COMMIT")


def _statements(version: int) -> Iterator[str]:
    return (statement for migration in MIGRATIONS[version:] for statement in migration)


def _search_damage(connection: sqlite3.Connection) -> None:
    """Raise `_Damaged` if the check of SQLite finds an error within some seconds."""
    end = time.monotonic() + CHECK_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > end, 100_000)
    try:
        [[result]] = connection.execute("PRAGMA quick_check(1)")
    except sqlite3.OperationalError as error:
        if _code(error) != sqlite3.SQLITE_INTERRUPT:
            raise
    else:
        if result != "ok":
            raise _Damaged(" ".join(result.split()))
    finally:
        connection.set_progress_handler(None, 0)


def _check_key(connection: sqlite3.Connection, path: Path, seal: Seal) -> None:
    """Raise `ConfigError` unless this seal can read the records. A file without any takes a new one."""
    rows = connection.execute("SELECT value FROM meta WHERE name = 'key'").fetchall()
    if rows and _number(connection, "SELECT count(*) FROM records"):
        written, encrypts = bytes(rows[0][0]), not isinstance(seal, NoSeal)
        if encrypts and written == _KEY_CHECK:
            raise ConfigError(f"the store {path} is not encrypted: move it away, or give no key")
        if not encrypts and written != _KEY_CHECK:
            raise ConfigError(f"the store {path} is encrypted: give its key, or move it away")
        try:
            seal.open(written, b"key")
        except BrokenSeal as error:
            raise ConfigError(
                f"the store {path} is encrypted with another key: give that one, or move it away"
            ) from error
    # This also tests that the file can be written.
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('key', ?)", (seal.close(_KEY_CHECK, b"key"),))


def _number(connection: sqlite3.Connection, sql: str) -> int:
    [[number]] = connection.execute(sql)
    return int(number)


def _make_private(path: Path) -> None:
    """Create the file if it does not exist, and let only this user read it. Raise `OSError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # SQLite gives its other files the same mode
    finally:
        os.close(descriptor)


def _move_away(path: Path) -> Path:
    """Rename the file and those that belong to it; return its new path. Raise `OSError`."""
    kept = path.with_name(f"{path.name}-damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
    return kept


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code of SQLite (https://sqlite.org/rescode.html), or -1."""
    return getattr(error, "sqlite_errorcode", -1) & 0xFF
