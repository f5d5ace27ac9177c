"""`/v1/batches`."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from fllm import LIMITED, Client, RequestError
from fllm_dialects.batches.descriptions import errors, success
from fllm_dialects.batches.protocol import Batch, BatchList, BatchRequest
from fllm_dialects.batches.service import BatchService

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")
"""What the requests of a batch may use, where the server has it."""
MAX_BATCHES, DEFAULT_BATCHES = 100, 20
"""Batches of a page, as at OpenAI."""


@post(
    "/v1/batches",
    status_code=200,
    opt=LIMITED,
    tags=["OpenAI"],
    summary="Create a batch",
    responses={**success(Batch), **errors(400, 404, 429, 503, 507)},
)
async def create_batch(
    data: JSONBody[BatchRequest],
    request: Request[Any, Any, Any],
    client: NamedDependency[Client],
    batches: NamedDependency[BatchService],
) -> Batch:
    """Start a batch: its requests are the lines of a file."""
    served = {route.path for route in request.app.routes}
    endpoints = [endpoint for endpoint in ENDPOINTS if endpoint in served]
    if data.endpoint not in endpoints:
        raise RequestError(
            f"`endpoint` is {data.endpoint[:128]!r}; batches can use {', '.join(endpoints)}", param="endpoint"
        )
    if data.completion_window != "24h":
        raise RequestError("`completion_window` must be '24h'", param="completion_window")
    return await batches.create_batch(client.owner, client.name, data)


@get(
    "/v1/batches",
    opt=LIMITED,
    tags=["OpenAI"],
    summary="List batches",
    responses={**success(BatchList), **errors(400, 404, 429, 503)},
)
async def list_batches(
    client: NamedDependency[Client],
    batches: NamedDependency[BatchService],
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_BATCHES)] = DEFAULT_BATCHES,
    after: FromQuery[str] = "",
) -> BatchList:
    """Return a page of the client's batches, the newest first."""
    return await batches.batches(client.owner, limit=limit, after=after)


@get(
    "/v1/batches/{batch_id:str}",
    opt=LIMITED,
    tags=["OpenAI"],
    summary="Retrieve a batch",
    responses={**success(Batch), **errors(404, 429, 503)},
)
async def retrieve_batch(
    batch_id: FromPath[str], client: NamedDependency[Client], batches: NamedDependency[BatchService]
) -> Batch:
    """Return a batch as it is now."""
    return await batches.batch(client.owner, batch_id)


@post(
    "/v1/batches/{batch_id:str}/cancel",
    status_code=200,
    opt=LIMITED,
    tags=["OpenAI"],
    summary="Cancel a batch",
    responses={**success(Batch), **errors(404, 409, 429, 503)},
)
async def cancel_batch(
    batch_id: FromPath[str], client: NamedDependency[Client], batches: NamedDependency[BatchService]
) -> Batch:
    """End the running requests of a batch, and start no others."""
    return await batches.cancel_batch(client.owner, batch_id)
