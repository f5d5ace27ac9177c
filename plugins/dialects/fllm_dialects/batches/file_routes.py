"""`/v1/files`."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import quote

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from fllm import LIMITED, STREAMS_BODY, Client
from fllm_dialects.batches.descriptions import (
    CONTENT_TYPE,
    DownloadOperation,
    UploadOperation,
    errors,
    success,
)
from fllm_dialects.batches.errors import storage_errors, too_large
from fllm_dialects.batches.form import FORM_BYTES
from fllm_dialects.batches.protocol import DeletedFile, FileList, FileObject
from fllm_dialects.batches.service import BatchService

MAX_FILES = 10_000
"""Maximum number of files of a page, as at OpenAI."""


@post(
    "/v1/files",
    status_code=200,
    opt={**LIMITED, **STREAMS_BODY},
    request_max_body_size=None,  # the options of the plugin limit it
    tags=["OpenAI"],
    summary="Upload a file",
    operation_class=UploadOperation,
    responses={**success(FileObject), **errors(400, 403, 413, 429, 503, 507)},
)
async def upload_file(
    request: Request[Any, Any, Any],
    client: NamedDependency[Client],
    batches: NamedDependency[BatchService],
) -> FileObject:
    """Store a file for a batch."""
    _refuse_web_page(request)
    length, most = request.content_length or 0, batches.options.max_file_bytes
    if length > most + FORM_BYTES:
        raise too_large(f"the body has {length} bytes; a file may have {most}")
    return await batches.upload(client.owner, request.headers.get("content-type", ""), request.stream())


@get(
    "/v1/files",
    opt=LIMITED,
    tags=["OpenAI"],
    summary="List files",
    responses={**success(FileList), **errors(400, 404, 429, 503)},
)
async def list_files(
    client: NamedDependency[Client],
    batches: NamedDependency[BatchService],
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_FILES)] = MAX_FILES,
    order: FromQuery[Literal["asc", "desc"]] = "desc",
    after: FromQuery[str] = "",
    purpose: FromQuery[str | None] = None,
) -> FileList:
    """Return a page of the client's files."""
    return await batches.files(client.owner, limit=limit, order=order, after=after, purpose=purpose)


@get(
    "/v1/files/{file_id:str}",
    opt=LIMITED,
    tags=["OpenAI"],
    summary="Retrieve a file",
    responses={**success(FileObject), **errors(404, 429, 503)},
)
async def retrieve_file(
    file_id: FromPath[str], client: NamedDependency[Client], batches: NamedDependency[BatchService]
) -> FileObject:
    """Return what is known about a file."""
    return await batches.file(client.owner, file_id)


@get(
    "/v1/files/{file_id:str}/content",
    opt=LIMITED,
    tags=["OpenAI"],
    summary="Download a file",
    operation_class=DownloadOperation,
    responses=errors(404, 429, 503),
)
async def file_content(
    file_id: FromPath[str], client: NamedDependency[Client], batches: NamedDependency[BatchService]
) -> Stream:
    """Return the content of a file."""
    file = await batches.file(client.owner, file_id)
    with storage_errors():
        size, pieces = await batches.contents.open(client.owner, file_id)
    return Stream(
        pieces,
        media_type=CONTENT_TYPE,
        headers={
            "Content-Length": str(size),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
            "X-Content-Type-Options": "nosniff",
        },
    )


@delete(
    "/v1/files/{file_id:str}",
    status_code=200,
    opt=LIMITED,
    tags=["OpenAI"],
    summary="Delete a file",
    responses={**success(DeletedFile), **errors(404, 409, 429, 503)},
)
async def delete_file(
    file_id: FromPath[str], client: NamedDependency[Client], batches: NamedDependency[BatchService]
) -> DeletedFile:
    """Delete a file that no batch needs."""
    return await batches.delete_file(client.owner, file_id)


def _refuse_web_page(request: Request[Any, Any, Any]) -> None:
    """Raise an error with 403 for a form that a browser sends without asking the server first (CORS)."""
    headers = request.headers
    if "origin" in headers and not ("authorization" in headers or "x-api-key" in headers):
        raise HTTPException(
            status_code=403, detail="a web page must send a header Authorization, whatever it holds"
        )
