"""Options of the plugin: ``--plugin-option batches.max_lines=1000``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class BatchOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of files and batches."""

    max_file_bytes: Annotated[int, Meta(ge=1, description="Maximum size of an uploaded file.")] = 200 * 2**20
    max_client_bytes: Annotated[
        int, Meta(ge=1, description="Maximum size of all files that one client keeps.")
    ] = 4 * 2**30
    max_total_bytes: Annotated[int, Meta(ge=1, description="Maximum size of all files of the server.")] = (
        16 * 2**30
    )
    max_lines: Annotated[int, Meta(ge=1, description="Maximum number of requests of a batch.")] = 50_000
    max_line_bytes: Annotated[int, Meta(ge=1, description="Maximum size of one request of a batch.")] = (
        16 * 2**20
    )
    max_batches: Annotated[
        int, Meta(ge=1, description="Maximum number of batches of one client that are not complete.")
    ] = 100
    concurrency: Annotated[
        int, Meta(ge=1, le=1024, description="Requests of all batches that run at the same time.")
    ] = 4
    file_ttl: Annotated[
        int, Meta(ge=0, description="Seconds after which a file expires that has no own time; 0: never.")
    ] = 30 * 86400
