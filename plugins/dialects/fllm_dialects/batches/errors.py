"""Errors of files and batches, as HTTP errors."""

from __future__ import annotations

import errno
import logging
from collections.abc import Generator
from contextlib import contextmanager

from litestar.exceptions import HTTPException

log = logging.getLogger("fllm.batches")

_FULL = (errno.ENOSPC, errno.EDQUOT)


class QuotaExceeded(Exception):
    """A file, or the files of a client or of all clients, are larger than allowed."""


def not_found(kind: str, identifier: str, param: str) -> HTTPException:
    """Return the error for a file or a batch that does not exist, or belongs to another client."""
    return HTTPException(
        status_code=404,
        detail=f"there is no {kind} {identifier[:128]!r}",
        extra={"param": param, "code": f"{kind}_not_found"},
    )


def conflict(message: str, param: str) -> HTTPException:
    """Return the error for what the present state does not allow."""
    return HTTPException(status_code=409, detail=message, extra={"param": param, "code": "conflict"})


def too_many(message: str) -> HTTPException:
    """Return the error for a client that has too many batches."""
    return HTTPException(
        status_code=429, detail=message, headers={"Retry-After": "60"}, extra={"code": "batch_limit_exceeded"}
    )


def too_large(message: str) -> HTTPException:
    """Return the error for a file that is too large."""
    return HTTPException(status_code=413, detail=message, extra={"param": "file", "code": "file_too_large"})


@contextmanager
def storage_errors() -> Generator[None]:
    """Raise an HTTP error in place of `QuotaExceeded` (413) and `OSError` (507 for a full disk, else 503)."""
    try:
        yield
    except QuotaExceeded as error:
        raise too_large(f"the file does not fit: {error}") from error
    except OSError as error:
        log.error("a file can't be stored or read", exc_info=error)
        if error.errno not in _FULL:
            detail = "the server can't store or read the file; see its log"
            raise HTTPException(status_code=503, detail=detail, extra={"code": "storage_error"}) from error
        detail = "the disk of the server is full; the file is not stored"
        raise HTTPException(status_code=507, detail=detail, extra={"code": "disk_full"}) from error
