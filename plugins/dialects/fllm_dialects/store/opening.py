"""Open the file of a store: create or migrate it, check its key, move a damaged one away."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiosqlite
from msgspec import structs

from fllm.errors import UserError
from fllm_dialects.store.database import Database
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
_MAX_LOG_BYTES = 16 << 20


class _Damaged(Exception):
    """The file is damaged."""


async def open_database(
    path: Path | None, settings: StoreSettings, *, clock: Callable[[], float] = time.time
) -> Database:
    """Open the store in a file, which only this user may read; create it if it does not exist.

    A damaged file is renamed, and a new one is created. If no file can be written, or ``path`` is ``None``,
    the records are in memory. Both are logged.

    Raise `UserError` if the file has a newer version or another key, or is not a store.
    """
    reason = "there is no data directory"
    if path is not None:
        try:
            return await _open_file(path, settings, clock)
        except (sqlite3.Error, OSError) as error:
            reason = f"{path}: {error}"
    log.warning("stored records are in memory only, and lost when the server stops: %s", reason)
    bounded = structs.replace(settings, max_bytes=min(settings.max_bytes, settings.max_memory_bytes))
    return await _connect(_MEMORY, bounded, clock, None)


async def _open_file(path: Path, settings: StoreSettings, clock: Callable[[], float]) -> Database:
    _make_private(path)
    lock = ServerLock(path)
    try:
        try:
            return await _connect(str(path), settings, clock, lock)
        except _Damaged as error:
            kept = _move_away(path)
            log.error(
                "the store is damaged: %s (%s); it is now %s, and a new one is created", path, error, kept
            )
        _make_private(path)
        return await _connect(str(path), settings, clock, lock)
    except BaseException:
        lock.release()
        raise


async def _connect(
    name: str, settings: StoreSettings, clock: Callable[[], float], lock: ServerLock | None
) -> Database:
    seal = AesSeal(settings.key) if settings.key is not None and lock is not None else NoSeal()
    connection = await aiosqlite.connect(name, isolation_level=None, timeout=BUSY_TIMEOUT)
    try:
        await _prepare(connection, name, seal)
    except BaseException as error:
        await connection.close()
        if isinstance(error, sqlite3.DatabaseError) and _code(error) in _DAMAGED:
            raise _Damaged(str(error)) from error
        raise
    return Database(connection, Records(connection, seal, settings, clock), lock, name)


async def _prepare(connection: aiosqlite.Connection, name: str, seal: Seal) -> None:
    """Check the file, and migrate it. Raise `UserError`, `_Damaged` or `sqlite3.Error`."""
    for pragma in (
        "auto_vacuum = INCREMENTAL",  # the file becomes smaller after records were deleted
        "journal_mode = WAL",
        "synchronous = FULL",  # a commit survives a power failure
        f"journal_size_limit = {_MAX_LOG_BYTES}",
        "secure_delete = FAST",  # zeros where records were, if that costs no further writes
    ):
        await connection.execute_fetchall(f"PRAGMA {pragma}")
    await _search_damage(connection)
    await connection.execute("BEGIN IMMEDIATE")
    version = await _number(connection, "PRAGMA user_version")
    if version > len(MIGRATIONS):
        raise UserError(
            f"the store {name} was written by a newer version of furiosa-llm (its version is {version}, "
            f"this one reads up to {len(MIGRATIONS)}): upgrade, or move the file away"
        )
    empty = await _number(connection, "SELECT count(*) FROM sqlite_master") == 0
    if not empty and await _number(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise UserError(
            f"{name} is a database of another program: move it away, or choose another data directory"
        )
    await connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for statement in (each for migration in MIGRATIONS[version:] for each in migration):
        await connection.execute(statement)
    await connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    await _check_key(connection, name, seal)
    await connection.execute("COMMIT")


async def _search_damage(connection: aiosqlite.Connection) -> None:
    """Raise `_Damaged` if the check of SQLite finds an error within some seconds."""
    end = time.monotonic() + CHECK_SECONDS
    await connection.set_progress_handler(lambda: time.monotonic() > end, 100_000)
    try:
        [[result]] = await connection.execute_fetchall("PRAGMA quick_check(1)")
    except sqlite3.OperationalError as error:
        if _code(error) != sqlite3.SQLITE_INTERRUPT:
            raise
    else:
        if result != "ok":
            raise _Damaged(" ".join(result.split()))
    finally:
        await connection.set_progress_handler(None, 0)  # type: ignore[arg-type]


async def _check_key(connection: aiosqlite.Connection, name: str, seal: Seal) -> None:
    """Raise `UserError` unless the records can be read with this seal. The first one is that of the file."""
    rows = [*await connection.execute_fetchall("SELECT value FROM meta WHERE name = 'key'")]
    used = await _number(connection, "SELECT count(*) FROM records") > 0
    if rows and used:
        written, encrypts = bytes(rows[0][0]), not isinstance(seal, NoSeal)
        if encrypts and written == _KEY_CHECK:
            raise UserError(f"the store {name} is not encrypted: move it away, or give no key")
        if not encrypts and written != _KEY_CHECK:
            raise UserError(f"the store {name} is encrypted: give its key, or move it away")
        try:
            seal.open(written, b"key")
        except BrokenSeal as error:
            raise UserError(
                f"the store {name} is encrypted with another key: give that one, or move it away"
            ) from error
    # Also tests that the file can be written.
    await connection.execute(
        "INSERT OR REPLACE INTO meta VALUES ('key', ?)", (seal.close(_KEY_CHECK, b"key"),)
    )


async def _number(connection: aiosqlite.Connection, sql: str) -> int:
    [[number]] = await connection.execute_fetchall(sql)
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
