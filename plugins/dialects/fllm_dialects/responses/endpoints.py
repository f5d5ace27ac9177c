"""All endpoints of the Responses API, with what they share."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler

from fllm import RoutesContext
from fllm_dialects.responses.create import create
from fllm_dialects.responses.input_tokens import count_input_tokens
from fllm_dialects.responses.stored import conversation_endpoints as conversations
from fllm_dialects.responses.stored import endpoints as stored
from fllm_dialects.responses.stored.service import ResponseService

HANDLERS: tuple[HTTPRouteHandler, ...] = (
    create,
    count_input_tokens,
    stored.retrieve_response,
    stored.delete_response,
    stored.cancel_response,
    stored.list_input_items,
    conversations.create_conversation,
    conversations.retrieve_conversation,
    conversations.update_conversation,
    conversations.delete_conversation,
    conversations.create_items,
    conversations.list_items,
    conversations.retrieve_item,
    conversations.delete_item,
)


def endpoints(context: RoutesContext) -> Iterator[HTTPRouteHandler]:
    """Yield the handlers of one server, which share a store. Raise `UserError` if its key cannot be read."""
    service = ResponseService(context, context.options)
    context.lifespan(service.running)
    provide = Provide(lambda: service, sync_to_thread=False)
    for handler in HANDLERS:
        handler = copy(handler)
        handler.dependencies = {**(handler.dependencies or {}), "stored": provide}
        yield handler
