"""Errors of a store while the server runs, as HTTP errors."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from litestar.exceptions import HTTPException

log = logging.getLogger("fllm.store")


class StoreError(HTTPException):
    """The store cannot serve a request; nothing of the request is stored."""


class StoreUnavailable(StoreError):
    """The file is damaged, locked, or cannot be read or written."""

    status_code = 503


class StoreFull(StoreError):
    """The disk is full, or the records exceed a limit of the store."""

    status_code = 507


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Log an error of SQLite, or a body that cannot be decoded, with the name of the file.

    Raise a `StoreError` for it.
    """
    try:
        yield
    except (sqlite3.Error, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("the store failed: %s: %s", name, error)
        raise _store_error(error) from error


def _store_error(error: Exception) -> StoreError:
    """Return the error to raise for an error of SQLite (https://sqlite.org/rescode.html) or of a decoder."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if not isinstance(error, sqlite3.Error):  # a message of SQLite that shows damaged bytes, or a body
        code = sqlite3.SQLITE_CORRUPT
    if code == sqlite3.SQLITE_IOERR_WRITE:  # such as a quota or `ulimit -f`; SQLite does not say which
        return StoreFull(
            detail="the disk of this server is full or cannot be written, so nothing can be stored"
        )
    match code & 0xFF:  # the primary result code
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_TOOBIG:
            return StoreFull(detail="the disk of this server is full, so nothing can be stored")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnavailable(detail="the store of this server is busy; try again")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreUnavailable(
                detail="the store of this server is damaged; its operator has to restart it"
            )
        case _:
            return StoreUnavailable(detail="the store of this server cannot be read or written; see its log")
