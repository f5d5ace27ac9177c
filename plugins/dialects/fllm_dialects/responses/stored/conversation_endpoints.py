"""Endpoints of conversations and of their items."""

from __future__ import annotations

import asyncio
import time

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from fllm import LIMITED, Client, RequestError
from fllm.concurrency.turn_executor import run_at_once
from fllm_dialects.responses.conversation import Conversation, is_reference
from fllm_dialects.responses.ids import new_id
from fllm_dialects.responses.protocol.conversations import (
    ConversationRequest,
    ConversationUpdate,
    Deleted,
    ItemList,
    ItemsRequest,
    StoredConversation,
)
from fllm_dialects.responses.protocol.items import InputItem
from fllm_dialects.responses.stored import conversation_records as stored_conversations
from fllm_dialects.responses.stored.errors import not_found
from fllm_dialects.responses.stored.items import complete_input, with_new_ids
from fllm_dialects.responses.stored.pages import After, Limit, Order, item_list, page_of
from fllm_dialects.responses.stored.service import ResponseService
from fllm_dialects.store import Records

MAX_ITEMS = 20
"""How many items a request can add, as OpenAI's."""


@post(
    "/v1/conversations", status_code=200, opt=dict(LIMITED), tags=["OpenAI"], summary="Create a conversation"
)
async def create_conversation(
    data: JSONBody[ConversationRequest],
    client: NamedDependency[Client],
    stored: NamedDependency[ResponseService],
) -> StoredConversation:
    """Create a conversation, which requests continue with `conversation`."""
    items = await asyncio.to_thread(_read_items, data.items or [])
    conversation = StoredConversation(
        id=new_id("conv_"), created_at=int(time.time()), metadata=data.metadata or {}
    )

    async def create(records: Records) -> None:
        await stored_conversations.put_conversation(records, conversation, client.owner)
        await stored_conversations.append_items(records, conversation.id, client.owner, items)

    await stored.database.write(create)
    return conversation


@get(
    "/v1/conversations/{conversation_id:str}",
    status_code=200,
    opt=dict(LIMITED),
    tags=["OpenAI"],
    summary="Retrieve a conversation",
)
async def retrieve_conversation(
    conversation_id: FromPath[str], client: NamedDependency[Client], stored: NamedDependency[ResponseService]
) -> StoredConversation:
    """Return a conversation without its items."""
    return await stored.database.read(
        lambda records: stored_conversations.get_conversation(records, conversation_id, client.owner)
    )


@post(
    "/v1/conversations/{conversation_id:str}",
    status_code=200,
    opt=dict(LIMITED),
    tags=["OpenAI"],
    summary="Update a conversation",
)
async def update_conversation(
    conversation_id: FromPath[str],
    data: JSONBody[ConversationUpdate],
    client: NamedDependency[Client],
    stored: NamedDependency[ResponseService],
) -> StoredConversation:
    """Replace the metadata of a conversation."""
    return await stored.database.write(
        lambda records: stored_conversations.update_conversation(
            records, conversation_id, client.owner, data.metadata or {}
        )
    )


@delete(
    "/v1/conversations/{conversation_id:str}",
    status_code=200,
    opt=dict(LIMITED),
    tags=["OpenAI"],
    summary="Delete a conversation",
)
async def delete_conversation(
    conversation_id: FromPath[str], client: NamedDependency[Client], stored: NamedDependency[ResponseService]
) -> Deleted:
    """Delete a conversation and its items. Responses that belong to it remain."""
    await stored.database.write(
        lambda records: stored_conversations.delete_conversation(records, conversation_id, client.owner)
    )
    return Deleted(id=conversation_id, object="conversation.deleted")


@post(
    "/v1/conversations/{conversation_id:str}/items",
    status_code=200,
    opt=dict(LIMITED),
    tags=["OpenAI"],
    summary="Add items to a conversation",
)
async def create_items(
    conversation_id: FromPath[str],
    data: JSONBody[ItemsRequest],
    client: NamedDependency[Client],
    stored: NamedDependency[ResponseService],
) -> ItemList:
    """Add up to 20 items to the end of a conversation; return them."""
    items = await asyncio.to_thread(_read_items, data.items)
    if not await stored.database.write(
        lambda records: stored_conversations.append_items(records, conversation_id, client.owner, items)
    ):
        raise not_found("Conversation", conversation_id)
    return item_list(items)


@get(
    "/v1/conversations/{conversation_id:str}/items",
    status_code=200,
    opt=dict(LIMITED),
    tags=["OpenAI"],
    summary="List the items of a conversation",
)
async def list_items(
    conversation_id: FromPath[str],
    client: NamedDependency[Client],
    stored: NamedDependency[ResponseService],
    limit: Limit = 20,
    order: Order = "desc",
    after: After = "",
) -> ItemList:
    """Return the items of a conversation."""
    page = page_of(limit, order, after)
    return await stored.database.read(
        lambda records: stored_conversations.get_items(records, conversation_id, client.owner, page)
    )


@get(
    "/v1/conversations/{conversation_id:str}/items/{item_id:str}",
    status_code=200,
    opt=dict(LIMITED),
    tags=["OpenAI"],
    summary="Retrieve an item of a conversation",
)
async def retrieve_item(
    conversation_id: FromPath[str],
    item_id: FromPath[str],
    client: NamedDependency[Client],
    stored: NamedDependency[ResponseService],
) -> InputItem:
    """Return an item of a conversation."""
    return await stored.database.read(
        lambda records: stored_conversations.get_item(records, conversation_id, client.owner, item_id)
    )


@delete(
    "/v1/conversations/{conversation_id:str}/items/{item_id:str}",
    status_code=200,
    opt=dict(LIMITED),
    tags=["OpenAI"],
    summary="Delete an item of a conversation",
)
async def delete_item(
    conversation_id: FromPath[str],
    item_id: FromPath[str],
    client: NamedDependency[Client],
    stored: NamedDependency[ResponseService],
) -> StoredConversation:
    """Delete an item of a conversation; return the conversation."""
    return await stored.database.write(
        lambda records: stored_conversations.delete_item(records, conversation_id, client.owner, item_id)
    )


def _read_items(items: list[InputItem]) -> list[InputItem]:
    """Return the items as they are stored. Raise `RequestError` for one that no request could continue."""
    if len(items) > MAX_ITEMS:
        raise RequestError(f"`items` has {len(items)} items; at most {MAX_ITEMS} can be added", param="items")
    for index, item in enumerate(items):
        if is_reference(item):
            raise RequestError(
                f"`items[{index}]` is a reference: send the item itself", param=f"items[{index}]"
            )
    Conversation().add(items, "items[{}]")
    return with_new_ids(run_at_once(complete_input(items)))
