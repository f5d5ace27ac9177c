"""A client of one server; it asks for exactly so many tokens, as far as that server can be told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from fllm.errors import UserError
from fllm_api.bench.answer import Answer, AnswerReader, BadAnswer, StreamedAnswer, WholeAnswer, reason
from fllm_api.bench.http import Pool, Refused
from fllm_api.bench.server import Manner, Server

Exactness = Literal["ignore_eos", "generation_config", "none"]
"""How to keep a server from ending an answer early: vLLM's way, transformers', not at all."""


class Failure(Exception):
    """A request without an answer; the message says why."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """Of HTTP, where the server refused."""


class Contact(Struct, frozen=True, kw_only=True):
    """A server, and what is known once it was asked."""

    server: Server
    manner: Manner
    model: str
    exactness: Exactness


class Client:
    """Sends requests to one server, over connections that live as long as this client."""

    def __init__(self, contact: Contact) -> None:
        self._contact = contact
        self._pool = Pool(contact.server.url, _headers(contact.manner))
        self._path = "/chat/completions" if contact.manner.chat else "/completions"

    async def ask(self, prompt: str, tokens: int, *, stream: bool = True) -> Answer:
        """Continue a prompt by ``tokens`` tokens, greedily; raises `Failure`."""
        body = msgspec.json.encode(_body(self._contact, prompt, tokens, stream))
        reader: AnswerReader = StreamedAnswer() if stream else WholeAnswer()
        async with _patience(self._contact.manner.timeout):
            await self._pool.post(self._path, body, reader.feed)
            return reader.answer()

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


async def meet(server: Server, manner: Manner, prompt: str) -> Contact:
    """Learn what to call the model and how to ask for an exact length; one answer warms the server up.

    Raises `UserError` where the server can't be reached, or refuses a plain request.
    """
    try:
        model = manner.model or await _first_model(server, manner)
        return await _agree(server, manner, model, prompt)
    except Failure as error:
        raise UserError(f"{server.name} ({server.url}): {error}") from error


async def _first_model(server: Server, manner: Manner) -> str:
    pool, body = Pool(server.url, _headers(manner)), bytearray()
    try:
        async with _patience(manner.timeout):
            await pool.get("/models", body.extend)
        return msgspec.json.decode(body, type=_Models).data[0].id
    except Failure as error:
        if error.status in (None, 401, 403):
            raise
        raise Failure(f"{error} for /models; name one with --model") from error
    except (msgspec.MsgspecError, IndexError) as error:
        raise Failure("/models has none; name one with --model") from error
    finally:
        pool.close()


async def _agree(server: Server, manner: Manner, model: str, prompt: str) -> Contact:
    """Some servers refuse fields that they do not know."""
    for exactness in get_args(Exactness):
        contact = Contact(server=server, manner=manner, model=model, exactness=exactness)
        client = Client(contact)
        try:
            await client.ask(prompt, 2)
            return contact
        except Failure as error:
            if error.status not in (400, 422) or exactness == "none":
                raise
        finally:
            client.close()
    raise AssertionError("the last exactness returns or raises")


def _headers(manner: Manner) -> dict[str, str]:
    return {"Authorization": f"Bearer {manner.api_key}"} if manner.api_key else {}


def _body(contact: Contact, prompt: str, tokens: int, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": contact.model, "max_tokens": tokens, "temperature": 0}
    if contact.manner.chat:
        body["messages"] = [{"role": "user", "content": prompt}]
    else:
        body["prompt"] = prompt
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    match contact.exactness:
        case "ignore_eos":
            body |= {"ignore_eos": True, "min_tokens": tokens}
        case "generation_config":
            body["generation_config"] = '{"eos_token_id": -1}'
    return body


@asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[None]:
    """Wait so long; whatever goes wrong meanwhile is a `Failure`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except Refused as error:
        raise Failure(f"HTTP {error.status}: {reason(error.body)}", error.status) from error
    except BadAnswer as error:
        raise Failure(str(error)) from error
    except OSError as error:
        ours = isinstance(error, TimeoutError) and error.errno is None
        why = f"no answer within {seconds:g} s" if ours else error.strerror or str(error)
        raise Failure(why) from error


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]
