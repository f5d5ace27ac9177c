"""Responses in a store: the record of a response, and its items below it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from fllm import RequestError
from fllm_dialects.responses.ids import shown
from fllm_dialects.responses.protocol.conversations import ItemList
from fllm_dialects.responses.protocol.items import InputItem, OutputItem
from fllm_dialects.responses.protocol.requests import ConversationRef
from fllm_dialects.responses.protocol.responses import Response, ResponseError
from fllm_dialects.responses.stored.items import decode_item
from fllm_dialects.responses.stored.pages import read_page
from fllm_dialects.store import ROWS_AT_ONCE, Page, Record, Records, StoreUnavailable

MAX_CONTEXT_BYTES = 64 << 20
"""Maximum size of the items that a request continues."""
MAX_REFERENCES = 1000
"""Maximum number of stored items that the input of a request refers to."""
RESPONSE = "response"
RUNNING = ("queued", "in_progress")
"""Statuses of a response that is not complete."""
_INPUT, _OUTPUT, _EVENTS = "input", "output", "events"
_EVENTS_ID = ""
"""No item has it, whose id the client may have chosen."""
_CANCELLING = "cancelling"

_json = msgspec.json.Encoder()
_response = msgspec.json.Decoder(Response)
_output = msgspec.json.Decoder(OutputItem)


class _Link(Struct, frozen=True):
    """What leads from a response to the one before it."""

    previous_response_id: str | None = None
    conversation: ConversationRef | None = None


_link = msgspec.json.Decoder(_Link)


async def get_response(records: Records, response_id: str, owner: str) -> Response | None:
    """Return a response, or ``None``."""
    record = await records.get(RESPONSE, response_id, owner)
    if record is None:
        return None
    output = await records.children(response_id, owner, kinds=[_OUTPUT]) or []
    return replace(decode_response(record), output=[_output.decode(each.body) for each in output])


def decode_response(record: Record) -> Response:
    """Return the response of a record, without its output. Raise `StoreUnavailable`."""
    try:
        return _response.decode(record.body)
    except msgspec.DecodeError as error:
        raise StoreUnavailable(detail=f"the stored response {record.id} cannot be read: {error}") from error


async def put_response(
    records: Records,
    response: Response,
    owner: str,
    *,
    server: str = "",
    given: Sequence[InputItem] = (),
    events: bytes = b"",
) -> None:
    """Store a response with its output, in place of an earlier state of it.

    ``server`` works on it. ``given`` are the items of the request, ``events`` those of the stream; both are
    added to what is stored.
    """
    body = _json.encode(replace(response, output=[]))
    record = Record(response.id, owner, RESPONSE, body, state=response.status, server=server)
    children = [
        *((_INPUT, str(item.id), _json.encode(item)) for item in given),
        *((_OUTPUT, item.id, _json.encode(item)) for item in response.output),
        *([(_EVENTS, _EVENTS_ID, events)] if events else []),
    ]
    parts = [Record(item_id, owner, kind, content, parent=response.id) for kind, item_id, content in children]
    await records.put_all([record, *parts])


async def request_cancellation(records: Records, response_id: str, owner: str) -> None:
    """Mark a response of another server as one to cancel."""
    record = await records.get(RESPONSE, response_id, owner)
    if record is not None and record.server:
        await records.put(replace(record, state=_CANCELLING))


async def to_cancel(records: Records, server: str) -> list[Record]:
    """Return the responses of a server that others were asked to cancel."""
    return [record for record in await records.claimed(RESPONSE, server) if record.state == _CANCELLING]


async def mark_failed(records: Records, response_id: str, owner: str, *, server: str, reason: str) -> None:
    """Store that a response failed, if that server still works on it. Raise `StoreUnavailable`."""
    record = await records.get(RESPONSE, response_id, owner)
    if record is not None and record.server == server:
        error = ResponseError("server_error", reason)
        await put_response(records, replace(decode_response(record), status="failed", error=error), owner)


async def get_input(records: Records, response_id: str, owner: str, page: Page) -> ItemList:
    """Return a page of the items of a request. Raise as `read_page`."""
    return await read_page(records, response_id, owner, page, kinds=[_INPUT])


async def get_events(records: Records, response_id: str, owner: str) -> bytes:
    """Return the stored events of a response; empty if it has none."""
    found = await records.children(response_id, owner, kinds=[_EVENTS]) or []
    return found[0].body if found else b""


async def get_history(records: Records, response_id: str, owner: str) -> tuple[list[str], list[InputItem]]:
    """Return the ids of a response and of those before it, and the items of all, oldest first.

    Raise `RequestError` if one of them does not exist or is not complete.
    """
    ids: list[str] = []
    next_id: str | None = response_id
    while next_id is not None:
        link = _link.decode((await _get_complete(records, next_id, owner)).body)
        if link.conversation is not None:
            raise _refused(
                f"Response {next_id!r} belongs to a conversation: continue it with `conversation`."
            )
        ids.append(next_id)
        next_id = link.previous_response_id
    kinds = [_INPUT, _OUTPUT]
    check_size(await records.size_of_children(ids, owner, kinds=kinds), "previous_response_id")
    found = await records.children_of(ids, owner, kinds=kinds)
    return ids, await read_items([record for each in reversed(ids) for record in found.get(each, ())])


async def find_items(records: Records, item_ids: Sequence[str], owner: str) -> dict[str, InputItem]:
    """Return the items of any response or conversation with these ids, by id.

    Raise `RequestError` if they are too many, or too large.
    """
    wanted = set(item_ids)
    if len(wanted) > MAX_REFERENCES:
        raise RequestError(
            f"`input` refers to {len(wanted)} items; at most {MAX_REFERENCES} are allowed", param="input"
        )
    items: dict[str, InputItem] = {}
    size = 0
    for item_id in wanted:  # one after the other, so that not all are read if they are too large
        for each in (await records.find_children([item_id], owner)).values():
            if each.kind != _EVENTS:
                size += len(each.body)
                check_size(size, "input")
                items[item_id] = decode_item(each.body)
    return items


async def read_items(found: Sequence[Record]) -> list[InputItem]:
    """Return the items, except calls that are incomplete: no output can follow them."""
    items: list[InputItem] = []
    for start in range(0, len(found), ROWS_AT_ONCE):
        items += [decode_item(each.body) for each in found[start : start + ROWS_AT_ONCE]]
        await asyncio.sleep(0)
    return [item for item in items if item.status != "incomplete" or not str(item.type).endswith("_call")]


def check_size(size: int, param: str) -> None:
    """Raise `RequestError` if items of that size in bytes are too many to continue."""
    if size > MAX_CONTEXT_BYTES:
        limit = f"{MAX_CONTEXT_BYTES >> 20} MiB"
        raise RequestError(
            f"the stored items have more than {limit}", param=param, code="context_length_exceeded"
        )


async def _get_complete(records: Records, response_id: str, owner: str) -> Record:
    record = await records.get(RESPONSE, response_id, owner)
    if record is None:
        raise _refused(
            f"Previous response with id {shown(response_id)} not found.", code="previous_response_not_found"
        )
    if record.server:
        raise _refused(f"Response {response_id!r} is not complete: wait until it is.")
    return record


def _refused(message: str, *, code: str | None = None) -> RequestError:
    return RequestError(message, param="previous_response_id", code=code)
