"""Conversations, and the pages of their items and of those of responses."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from fllm_dialects.responses.protocol.items import InputItem
from fllm_dialects.responses.protocol.requests import Metadata


class StoredConversation(Struct, frozen=True, kw_only=True):
    """A conversation. Its items are requested separately."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    """Unix time in seconds."""
    metadata: Metadata = {}


class ConversationRequest(Struct, frozen=True, kw_only=True):
    """Body of the request that creates a conversation."""

    items: list[InputItem] | None = None
    """Up to 20 items."""
    metadata: Metadata | None = None


class ConversationUpdate(Struct, frozen=True, kw_only=True):
    """Body of the request that changes a conversation."""

    metadata: Metadata | None = None


class ItemsRequest(Struct, frozen=True, kw_only=True):
    """Body of the request that adds items to a conversation."""

    items: list[InputItem]
    """Up to 20 items."""


class ItemList(Struct, frozen=True, kw_only=True):
    """A page of items."""

    object: Literal["list"] = "list"
    data: list[InputItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(Struct, frozen=True, kw_only=True):
    """What was deleted."""

    id: str
    object: Literal["response", "conversation.deleted"]
    deleted: bool = True
