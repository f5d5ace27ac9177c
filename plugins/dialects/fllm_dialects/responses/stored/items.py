"""Items as they are stored: complete, each with an id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from fllm.concurrency.turn_executor import Pieces
from fllm_dialects.responses.ids import new_id
from fllm_dialects.responses.protocol.items import InputItem, InputPart

_PREFIXES = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "custom_tool_call": "ctc_",
    "custom_tool_call_output": "ctco_",
}
"""How the id of an item begins, by its type."""

MAX_ID_CHARS = 256
"""Maximum length of an id that a client chose and that an item keeps."""
_item = msgspec.json.Decoder(InputItem)


def complete_input(given: str | Iterable[InputItem] | None) -> Pieces[list[InputItem]]:
    """Return the items of an input, each with an id of its own, and texts as parts, as OpenAI lists them."""
    if isinstance(given, str):
        given = [InputItem(role="user", content=given)]
    ids: set[str] = set()
    complete: list[InputItem] = []
    for item in given or ():
        complete.append(_complete(item, ids))
        yield 0
    return complete


def with_new_ids(items: Iterable[InputItem]) -> list[InputItem]:
    """Return the items with other ids: in a conversation, each id occurs once."""
    return [replace(item, id=_new_id(item)) for item in items]


def decode_item(body: bytes) -> InputItem:
    """Return a stored item."""
    return _item.decode(body)


def _complete(item: InputItem, ids: set[str]) -> InputItem:
    kind = item.type or "message"
    item_id = item.id if item.id and len(item.id) <= MAX_ID_CHARS and item.id not in ids else _new_id(item)
    ids.add(item_id)
    status = item.status or ("completed" if kind != "reasoning" else UNSET)
    item = replace(item, type=kind, id=item_id, status=status)
    if kind == "message" and isinstance(item.content, str):
        generated = item.role == "assistant"
        extra: dict[str, Any] = {"annotations": []} if generated else {}
        part = InputPart(type="output_text" if generated else "input_text", text=item.content, **extra)
        item = replace(item, content=[part])
    return item


def _new_id(item: InputItem) -> str:
    return new_id(_PREFIXES.get(item.type or "message", "item_"))
