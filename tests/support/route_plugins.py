"""Servers with a route that generates, as a plugin adds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse
from msgspec import Struct
from support.api_fakes import a_server

from fllm.events import Finished, Text
from fllm.pipeline.output_processor import SequenceOutput
from fllm.plugins.discovery import Candidate
from fllm.plugins.hooks import hookimpl
from fllm.plugins.loader import Plugins
from fllm.requests.chat import ChatMessage, ChatRequest
from fllm.serving import (
    USES_ENGINE,
    ErrorInfo,
    Outcome,
    ResponseEncoder,
    RoutesContext,
    Serving,
    error_body,
)
from fllm_api.app_state import AppState


class Say(Struct, frozen=True):
    """The body of a request to `/say`."""

    text: str
    stream: bool = False
    model: str | None = None


class Start(Struct, frozen=True, tag="start"):
    """The first chunk."""


class Piece(Struct, frozen=True, tag="piece"):
    """Some of the text."""

    text: str


class End(Struct, frozen=True, tag="end"):
    """The last chunk."""

    tokens: int


class Failure(Struct, frozen=True, tag="error"):
    """The error envelope of `/say`."""

    status: int
    reason: str
    request: str


class Said(Struct, frozen=True):
    """The whole response."""

    text: str
    tokens: int
    first: str


def failure(status: int, error: ErrorInfo, request_id: str) -> Failure:
    """Return the error envelope of `/say`."""
    return Failure(status, error.message, request_id)


class SayEncoder(ResponseEncoder[Start | Piece | End]):
    """Encodes the response of `/say`."""

    def __init__(self) -> None:
        self._tokens = 0

    def start(self) -> list[Start | Piece | End]:
        return [Start()]

    def feed(self, output: SequenceOutput) -> list[Start | Piece | End]:
        for event in output.events:
            if isinstance(event, Finished):
                self._tokens = event.usage.completion_tokens
        return [Piece(event.text) for event in output.events if isinstance(event, Text)]

    def finish(self) -> list[Start | Piece | End]:
        return [End(self._tokens)]

    def fold(self, chunks: Sequence[Start | Piece | End]) -> Said:
        text = "".join(chunk.text for chunk in chunks if isinstance(chunk, Piece))
        return Said(text, self._tokens, type(chunks[0]).__name__)

    def error(self, error: ErrorInfo) -> list[Failure]:
        return [Failure(0, error.message, "")]


def say_route(
    ends: list[Outcome],
    on_end: Callable[[Outcome], None] = lambda _: None,
    encoder: Callable[[], SayEncoder] = SayEncoder,
) -> Any:
    """Return the handler of `POST /say`. The outcomes of its generations are appended to ``ends``."""

    async def end(outcome: Outcome) -> None:
        ends.append(outcome)
        on_end(outcome)

    @post("/say", status_code=200, opt={**USES_ENGINE, **error_body(failure)})
    async def say(data: JSONBody[Say], server: NamedDependency[Serving]) -> ASGIResponse:
        chat = ChatRequest(model=data.model, messages=[ChatMessage(role="user", content=data.text)])
        generation = await server.read_chat(chat)
        response: ASGIResponse = server.respond(generation, encoder(), stream=data.stream, on_end=end)
        return response

    return say


def server_with_routes(
    routes: Callable[[RoutesContext], Iterable[Any]], words: Sequence[str] = ("a", "b"), **parts: Any
) -> AppState:
    """Return a server with a plugin whose hook `fllm_routes` is this function."""
    module = ModuleType("routes")
    module.fllm_routes = hookimpl(lambda context: list(routes(context)), specname="fllm_routes")  # type: ignore[attr-defined]
    plugins = Plugins()
    plugins.load(Candidate("routes", "d", "1", "m", lambda: module))
    assert plugins.reports[-1].error is None, plugins.reports[-1].error
    return a_server(words, plugins=plugins, **parts)
