"""A plugin with one generating route, in an API of its own. Its faults are for tests of the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse
from msgspec import Struct

import fllm
from fllm.testing import Response, RouteRequest, RoutesContract


class StoryRequest(Struct, frozen=True):
    about: str
    stream: bool = False


class Piece(Struct, frozen=True):
    text: str


class Failure(Struct, frozen=True):
    error: str


class StoryEncoder(fllm.ResponseEncoder[Piece]):
    def feed(self, output: fllm.SequenceOutput) -> list[Piece]:
        return [Piece(event.text) for event in output.events if isinstance(event, fllm.Text)]

    def fold(self, chunks: Sequence[Piece]) -> Piece:
        return Piece("".join(chunk.text for chunk in chunks))

    def error(self, error: fllm.ErrorInfo) -> list[Failure]:
        return [Failure(error.message)]


def failure(status: int, error: fllm.ErrorInfo, request_id: str) -> Failure:
    return Failure(error.message)


class StoryRoutes:
    """The plugin. Its attributes are what a faulty one would do otherwise."""

    def __init__(
        self,
        *,
        path: str = "/story",
        opt: Any = fllm.USES_ENGINE,
        encoder: Callable[[], fllm.ResponseEncoder[Any]] = StoryEncoder,
        error: Callable[[int, fllm.ErrorInfo, str], Any] = failure,
        read: Callable[[StoryRequest], str] = lambda data: data.about,
    ) -> None:
        self._path = path
        self._opt = {**opt, **fllm.error_body(error, fllm.JSON_LINES)}
        self._encoder = encoder
        self._read = read

    @fllm.hookimpl
    def fllm_routes(self) -> Iterable[Any]:
        @post(self._path, status_code=200, opt=self._opt)
        async def story(data: JSONBody[StoryRequest], server: NamedDependency[fllm.Serving]) -> ASGIResponse:
            message = fllm.ChatMessage(role="user", content=self._read(data))
            generation = await server.read_chat(fllm.ChatRequest(messages=[message]))
            return server.respond(generation, self._encoder(), stream=data.stream, framing=fllm.JSON_LINES)

        yield story


class StoryContract(RoutesContract):
    plugin = StoryRoutes()
    requests = (
        RouteRequest(path="/story", body={"about": "cats"}, streamed={"stream": True}, required=("about",)),
    )

    def text(self, response: Response) -> str:
        text: str = response.json()["text"]
        return text

    def streamed_text(self, response: Response) -> str:
        return "".join(chunk["text"] for chunk in response.lines())
