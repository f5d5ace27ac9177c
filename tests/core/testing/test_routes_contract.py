"""The contract of routes passes for a route that generates, and fails for each fault that it names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec import Struct
from support.story_routes import Piece, StoryContract, StoryEncoder, StoryRoutes

import fllm
from fllm.errors import PluginError
from fllm.testing import Response, RouteRequest, RoutesContract


class NoRoutes:
    @fllm.hookimpl
    def fllm_routes(self) -> Sequence[Any]:
        return ()


class TestStory(StoryContract):
    """A plugin that holds the contract."""


class TestChatAndCompletions(RoutesContract):
    """The server's own routes hold it, too."""

    plugin = NoRoutes()
    requests = (
        RouteRequest(
            path="/v1/chat/completions",
            body={"messages": [{"role": "user", "content": "Hi"}]},
            streamed={"stream": True},
            required=("messages",),
        ),
        RouteRequest(
            path="/v1/completions",
            body={"prompt": "Hi", "max_tokens": 99},
            streamed={"stream": True},
            required=("prompt",),
        ),
        RouteRequest(path="/v1/models", method="GET", generates=False),
    )

    def text(self, response: Response) -> str:
        return "".join(_text(choice.get("message", choice)) for choice in response.json()["choices"])

    def streamed_text(self, response: Response) -> str:
        chunks = [event.json() for event in response.events() if event.data != "[DONE]"]
        return "".join(_text(choice.get("delta", choice)) for chunk in chunks for choice in chunk["choices"])


def _text(choice: Mapping[str, str | None]) -> str:
    return choice.get("content") or choice.get("text") or ""


class LosesText(StoryEncoder):
    def fold(self, chunks: Sequence[Piece]) -> Piece:
        return Piece(chunks[0].text[:4])


class HasNoError(StoryEncoder):
    def error(self, error: fllm.ErrorInfo) -> list[Any]:
        return []


class Raises(StoryEncoder):
    def feed(self, output: fllm.SequenceOutput) -> list[Piece]:
        raise ValueError("a bug")


class Coded(Struct):
    code: int


def bare(status: int, error: fllm.ErrorInfo, request_id: str) -> Any:
    return Coded(status)


def fails_for_empty(data: Any) -> str:
    return str(data.about[0])


@pytest.mark.parametrize(
    ("broken", "test", "message"),
    [
        (StoryRoutes(path="/other"), "the_routes_are_mounted", "POST /story is not a route of the plugin"),
        (StoryRoutes(encoder=Raises), "valid_requests_succeed", "POST /story: 500"),
        (StoryRoutes(encoder=LosesText), "a_stream_and_a_whole_response_have_the_same_text", "is 'Once'"),
        (StoryRoutes(error=bare), "a_key_is_required", "there is no message in the error {'code': 401}"),
        (StoryRoutes(read=fails_for_empty), "wrong_values_never_break_the_server", "body['about'] = '': 500"),
        (StoryRoutes(opt={}), "a_full_server_is_an_error_with_retry_after", "POST /story: "),
        (StoryRoutes(encoder=HasNoError), "an_error_of_the_engine_is_reported", "does not end with an error"),
    ],
)
def test_a_fault_fails_its_test(broken: StoryRoutes, test: str, message: str) -> None:
    class Broken(StoryContract):
        plugin = broken

    with pytest.raises(AssertionError, match=re.escape(message)):
        getattr(Broken(), f"test_{test}")()


def test_a_path_that_is_not_free_is_an_error() -> None:
    class Broken(StoryContract):
        plugin = StoryRoutes(path="/health")

    with pytest.raises(PluginError, match="the server itself uses the path /health"):
        Broken().test_the_routes_are_mounted()
