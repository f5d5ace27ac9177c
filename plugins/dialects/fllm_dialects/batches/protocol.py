"""The objects of OpenAI's Files and Batch APIs, and the lines of their files."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct, field

MIN_EXPIRY, MAX_EXPIRY = 3600, 30 * 86400
"""Seconds that ``expires_after`` may name, as at OpenAI."""
WINDOW = 86400
"""Seconds of the ``completion_window`` ``24h``."""
MAX_METADATA = 16
"""Entries of ``metadata``; OpenAI's limits."""

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
ENDED: frozenset[BatchStatus] = frozenset({"failed", "completed", "expired", "cancelled"})
"""The states that a batch does not leave."""

MetadataKey = Annotated[str, Meta(max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=MAX_METADATA)]


class FileObject(Struct, frozen=True, kw_only=True):
    """A file, as `/v1/files` shows it."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileList(Struct, frozen=True, kw_only=True):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class DeletedFile(Struct, frozen=True, kw_only=True):
    """The answer to `DELETE /v1/files/{id}`."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class ExpiresAfter(Struct, frozen=True, forbid_unknown_fields=True):
    """When a file expires."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=MIN_EXPIRY, le=MAX_EXPIRY)]


class BatchRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class BatchError(Struct, frozen=True, kw_only=True):
    """Why a batch failed; ``line`` is the line of the input file, counted from 1."""

    code: str
    line: int | None = None
    message: str
    param: str | None = None


class BatchErrors(Struct, frozen=True, kw_only=True):
    """The errors of a batch."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(Struct, frozen=True):
    """The requests of a batch: all, those with status 200, and the others that ended."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class Batch(Struct, frozen=True, kw_only=True):
    """A batch, as `/v1/batches` shows it. Times are Unix times in seconds."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str = "24h"
    status: BatchStatus = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    metadata: dict[str, str] | None = None


class BatchList(Struct, frozen=True, kw_only=True):
    """A page of batches."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class InputLine(Struct, frozen=True, kw_only=True):
    """A line of an input file: one request."""

    custom_id: Annotated[str, Meta(min_length=1, max_length=512)]
    method: str
    url: str
    body: Raw


class LineBody(Struct, frozen=True, kw_only=True):
    """What is checked of the body of a request before the batch starts."""

    stream: Any = None
    background: Any = None


class LineResponse(Struct, frozen=True, kw_only=True):
    """The response to one request."""

    status_code: int
    request_id: str
    body: Raw


class LineError(Struct, frozen=True, kw_only=True):
    """Why a request has no response."""

    code: str
    message: str


class OutputLine(Struct, frozen=True, kw_only=True):
    """A line of an output file (status 200) or of an error file (all others)."""

    id: str
    custom_id: str
    response: LineResponse | None = None
    error: LineError | None = None


class WrittenLine(Struct, frozen=True, kw_only=True):
    """What is read again of a line of an output or error file."""

    custom_id: str


class StoredBatch(Struct, frozen=True, kw_only=True):
    """A batch as it is stored, with what is not shown to clients."""

    batch: Batch
    owner: str
    client: str
    """On whose behalf the requests run."""
    output_id: str
    error_id: str
    """Ids of the files, which clients see once the batch has ended."""
    output_ttl: int | None = field(default=None)
    """Seconds from the end of the batch until its files expire."""
