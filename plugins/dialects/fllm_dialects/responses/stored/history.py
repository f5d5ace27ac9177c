"""What a request continues, and what is stored when its response is complete."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import msgspec
from msgspec import Struct

from fllm import OnEnd, RequestError
from fllm.concurrency.turn_executor import Pieces
from fllm_dialects.responses.conversation import is_reference
from fllm_dialects.responses.encoder import ResponsesEncoder
from fllm_dialects.responses.protocol.items import InputItem
from fllm_dialects.responses.protocol.requests import InputTokensRequest, ResponsesRequest
from fllm_dialects.responses.protocol.responses import Response
from fllm_dialects.responses.stored.conversation_records import append_items, get_context
from fllm_dialects.responses.stored.items import complete_input, with_new_ids
from fllm_dialects.responses.stored.response_records import RESPONSE, find_items, get_history, put_response
from fllm_dialects.store import Database, Records, StoreError

log = logging.getLogger("fllm.responses")


class Context(Struct, frozen=True):
    """What a request continues."""

    items: Sequence[InputItem] = ()
    """The items before its input, oldest first."""
    references: dict[str, InputItem] = {}
    """The stored items that its input refers to, by id."""
    used: Sequence[str] = ()
    """Ids of the responses that the items are from. They do not expire as long as they are continued."""


class StoredRequest(Struct, frozen=True):
    """A request whose response is stored, or whose conversation receives items."""

    owner: str
    given: Sequence[InputItem]
    """The items of its input, complete."""
    used: Sequence[str] = ()
    keeps_response: bool = True
    """If false, only the conversation receives items."""


class History:
    """The stored responses and conversations of a server."""

    def __init__(self, database: Database | None) -> None:
        """Create it. Without a database, nothing is stored, and requests cannot ask for it."""
        self.database = database

    def keeps(self, body: ResponsesRequest) -> bool:
        """Return whether the response is stored. Raise `RequestError` if that is not possible."""
        keeps = self.database is not None and body.store is not False
        if body.store and not keeps:
            raise RequestError("`store`: this server stores no responses", param="store")
        if body.background and not keeps:
            raise RequestError("`background` requires `store`: true", param="background")
        return keeps

    async def context(self, body: InputTokensRequest, owner: str, wanted: Sequence[str]) -> Context:
        """Return what a request continues. ``wanted`` are the ids of `references`.

        Raise `RequestError` if it is not stored, or an error with status 404 for the conversation.
        """
        if body.previous_response_id is not None and body.conversation is not None:
            raise RequestError(
                "`previous_response_id` and `conversation` exclude each other", param="previous_response_id"
            )
        if body.previous_response_id is None and body.conversation is None and not wanted:
            return Context()
        if self.database is None:
            raise RequestError(
                "this server stores no responses, so there are none to continue",
                param="conversation" if body.conversation else "previous_response_id",
            )
        return await self.database.read(partial(_read_context, body=body, owner=owner, wanted=wanted))

    def request(self, body: ResponsesRequest, context: Context, owner: str) -> Pieces[StoredRequest | None]:
        """Return what to store for a request; ``None``: nothing. Raise as `keeps`."""
        keeps = self.keeps(body)
        if not keeps and body.conversation is None:
            return None
        given = body.input
        if isinstance(given, list):
            given = [
                context.references.get(str(item.id), item) if is_reference(item) else item for item in given
            ]
        return StoredRequest(owner, (yield from complete_input(given)), context.used, keeps)

    def on_end(self, request: StoredRequest, encoder: ResponsesEncoder, *, stream: bool) -> OnEnd:
        """Return what stores the response before the end of it is sent.

        If the generation fails or the client leaves, the client of a stream knows the id of the response
        already. Then it is stored as failed or cancelled, with what it has so far.
        """

        async def store(outcome: str) -> None:
            if outcome == "complete":
                await self.save(encoder.response, request)
            elif stream and encoder.begun:
                if outcome == "abort":
                    encoder.cancel()
                with suppress(StoreError):  # it is logged; the client receives why the response failed
                    await self.save(encoder.response, request)

        return store

    async def save(
        self,
        response: Response,
        request: StoredRequest,
        *,
        server: str = "",
        is_update: bool = False,
        events: bytes = b"",
    ) -> None:
        """Store a response and its items, durably. Add them to its conversation once it is complete.

        ``is_update``: an earlier state is stored, with the items of the request. If it was deleted meanwhile,
        nothing is stored. Raise `StoreError`.
        """
        assert self.database is not None, "the request was refused otherwise"

        async def write(records: Records) -> None:
            if is_update and await records.get(RESPONSE, response.id, request.owner) is None:
                return
            if request.keeps_response:
                await put_response(
                    records,
                    response,
                    request.owner,
                    server=server,
                    given=() if is_update else request.given,
                    events=events,
                )
            await records.touch(request.used, request.owner)
            if response.conversation and response.status in ("completed", "incomplete"):
                added = [*with_new_ids(request.given), *map(_as_input, response.output)]
                # False: the conversation was deleted meanwhile.
                await append_items(records, response.conversation.id, request.owner, added)

        await self.database.write(write)


def references(body: InputTokensRequest) -> Pieces[list[str]]:
    """Return the ids of the stored items that an input refers to."""
    wanted: list[str] = []
    for item in body.input if isinstance(body.input, list) else ():
        if isinstance(item.id, str) and is_reference(item):
            wanted.append(item.id)
        yield 0
    return wanted


async def _read_context(
    records: Records, body: InputTokensRequest, owner: str, wanted: Sequence[str]
) -> Context:
    used: Sequence[str] = ()
    items: list[InputItem] = []
    if body.previous_response_id is not None:
        used, items = await get_history(records, body.previous_response_id, owner)
    elif body.conversation is not None:
        conversation = body.conversation
        conversation_id = conversation if isinstance(conversation, str) else conversation.id
        items = await get_context(records, conversation_id, owner)
    return Context(items, await find_items(records, wanted, owner), used)


def _as_input(item: Struct) -> InputItem:
    return msgspec.convert(msgspec.to_builtins(item), InputItem)
