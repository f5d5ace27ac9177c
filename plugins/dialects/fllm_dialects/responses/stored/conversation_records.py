"""Conversations in a store: the record of a conversation, and its items below it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from fllm_dialects.responses.protocol.conversations import ItemList, StoredConversation
from fllm_dialects.responses.protocol.items import InputItem
from fllm_dialects.responses.protocol.requests import Metadata
from fllm_dialects.responses.stored.errors import not_found
from fllm_dialects.responses.stored.items import decode_item
from fllm_dialects.responses.stored.pages import read_page
from fllm_dialects.responses.stored.response_records import check_size, read_items
from fllm_dialects.store import Page, Record, Records

_CONVERSATION, _ITEM = "conversation", "item"

_json = msgspec.json.Encoder()
_conversation = msgspec.json.Decoder(StoredConversation)


async def get_conversation(
    records: Records, conversation_id: str, owner: str, *, param: str | None = None
) -> StoredConversation:
    """Return a conversation. Raise an error with status 404 if there is none."""
    record = await records.get(_CONVERSATION, conversation_id, owner)
    if record is None:
        raise not_found("Conversation", conversation_id, param=param)
    return _conversation.decode(record.body)


async def put_conversation(records: Records, conversation: StoredConversation, owner: str) -> None:
    """Store a conversation, in place of an earlier state of it."""
    await records.put(Record(conversation.id, owner, _CONVERSATION, _json.encode(conversation)))


async def update_conversation(
    records: Records, conversation_id: str, owner: str, metadata: Metadata
) -> StoredConversation:
    """Replace the metadata of a conversation; return it. Raise as `get_conversation`."""
    conversation = await get_conversation(records, conversation_id, owner)
    conversation = replace(conversation, metadata=metadata)
    await put_conversation(records, conversation, owner)
    return conversation


async def delete_conversation(records: Records, conversation_id: str, owner: str) -> None:
    """Delete a conversation with its items. Raise an error with status 404 if there is none."""
    if not await records.delete(_CONVERSATION, conversation_id, owner):
        raise not_found("Conversation", conversation_id)


async def append_items(
    records: Records, conversation_id: str, owner: str, items: Sequence[InputItem]
) -> bool:
    """Store items at the end of a conversation; return whether it exists."""
    if await records.get(_CONVERSATION, conversation_id, owner) is None:
        return False
    return await records.append(
        [Record(str(item.id), owner, _ITEM, _json.encode(item), parent=conversation_id) for item in items]
    )


async def get_items(records: Records, conversation_id: str, owner: str, page: Page) -> ItemList:
    """Return a page of the items. Raise as `get_conversation` and `read_page`."""
    await get_conversation(records, conversation_id, owner)
    return await read_page(records, conversation_id, owner, page)


async def get_item(records: Records, conversation_id: str, owner: str, item_id: str) -> InputItem:
    """Return an item. Raise an error with status 404 if there is none."""
    await get_conversation(records, conversation_id, owner)
    record = await records.get(_ITEM, item_id, owner, parent=conversation_id)
    if record is None:
        raise not_found("Item", item_id)
    return decode_item(record.body)


async def delete_item(records: Records, conversation_id: str, owner: str, item_id: str) -> StoredConversation:
    """Delete an item; return its conversation. Raise an error with status 404 if there is none."""
    conversation = await get_conversation(records, conversation_id, owner)
    if not await records.delete(_ITEM, item_id, owner, parent=conversation_id):
        raise not_found("Item", item_id)
    return conversation


async def get_context(records: Records, conversation_id: str, owner: str) -> list[InputItem]:
    """Return the items that a request continues. Raise as `get_conversation`, or `RequestError`."""
    await get_conversation(records, conversation_id, owner, param="conversation")
    check_size(await records.size_of_children([conversation_id], owner), "conversation")
    return await read_items(await records.children(conversation_id, owner) or [])
