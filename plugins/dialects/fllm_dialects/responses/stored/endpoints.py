"""Endpoints of stored responses: retrieve, stream, delete, cancel, and list the items of the request."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response as HttpResponse
from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, QueryParameter

from fllm import LIMITED, Client
from fllm_dialects.responses.protocol.conversations import Deleted, ItemList
from fllm_dialects.responses.protocol.errors import ErrorBody
from fllm_dialects.responses.protocol.responses import Response
from fllm_dialects.responses.stored.events import event_stream
from fllm_dialects.responses.stored.pages import After, Before, Limit, Order, page_of
from fllm_dialects.responses.stored.service import ResponseService

StartingAfter = Annotated[
    int | None, QueryParameter(ge=0, description="Number of the last event that the client has received.")
]

# Not `LIMITED`: a client asks for what is generated for it while it is at its limits.
ERRORS = {
    status: ResponseSpec(ErrorBody, description=phrase, generate_examples=False)
    for status, phrase in (
        (400, "Bad Request"),
        (401, "Unauthorized"),
        (404, "Not Found"),
        (415, "Unsupported Media Type"),
        (500, "Internal Server Error"),
        (503, "Service Unavailable"),
    )
}


@get(
    "/v1/responses/{response_id:str}",
    status_code=200,
    tags=["OpenAI"],
    summary="Retrieve a response",
    responses={**ERRORS, 200: ResponseSpec(Response, description="The response", generate_examples=False)},
)
async def retrieve_response(
    response_id: FromPath[str],
    client: NamedDependency[Client],
    stored: NamedDependency[ResponseService],
    stream: FromQuery[bool] = False,
    starting_after: StartingAfter = None,
) -> HttpResponse[Any]:
    """Return a stored response; or stream its events, which continues a stream that was interrupted.

    Only responses that were created with `background` and `stream` have events.
    """
    if stream:
        after = -1 if starting_after is None else starting_after
        return event_stream(await stored.events(response_id, client.owner, after), after)
    return HttpResponse(await stored.get(response_id, client.owner))


@delete(
    "/v1/responses/{response_id:str}",
    status_code=200,
    tags=["OpenAI"],
    summary="Delete a response",
    responses=ERRORS,
)
async def delete_response(
    response_id: FromPath[str], client: NamedDependency[Client], stored: NamedDependency[ResponseService]
) -> Deleted:
    """Delete a stored response. One that is generated in the background is cancelled first."""
    await stored.delete(response_id, client.owner)
    return Deleted(id=response_id, object="response")


@post(
    "/v1/responses/{response_id:str}/cancel",
    status_code=200,
    tags=["OpenAI"],
    summary="Cancel a response",
    responses=ERRORS,
)
async def cancel_response(
    response_id: FromPath[str], client: NamedDependency[Client], stored: NamedDependency[ResponseService]
) -> Response:
    """Cancel a response that is generated in the background; return it. One that has ended stays as it is."""
    return await stored.cancel(response_id, client.owner)


@get(
    "/v1/responses/{response_id:str}/input_items",
    status_code=200,
    opt=dict(LIMITED),
    tags=["OpenAI"],
    summary="List the items of a request",
)
async def list_input_items(
    response_id: FromPath[str],
    client: NamedDependency[Client],
    stored: NamedDependency[ResponseService],
    limit: Limit = 20,
    order: Order = "desc",
    after: After = "",
    before: Before = "",
) -> ItemList:
    """Return the items of the request of a stored response."""
    page = page_of(limit, order, after, before)
    return await stored.input_items(response_id, client.owner, page)
