"""What an answer leaves in the conversation."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import pytest
from rich.console import Console

from fllm.events import Event, Finished, Reasoning, Text, ToolArguments, ToolStart
from fllm.values import Usage
from fllm_terminal.answer_view import AnswerView, Kind
from fllm_terminal.client import Client, RequestFailed
from fllm_terminal.connection import Connection
from fllm_terminal.conversation import Conversation
from fllm_terminal.loop import chat_until_end
from fllm_terminal.session import Session
from fllm_terminal.settings import Settings

CALL: list[Event] = [Text("Let me see."), ToolStart(0, "f", "c"), ToolArguments(0, '{"a": ')]


class Scripted(Client):
    """Yields these events, and then fails if there is an error."""

    def __init__(self, events: list[Event], error: BaseException | None = None) -> None:
        super().__init__(Connection("http://localhost/v1"))
        self._events, self._error = events, error

    async def chat(self, body: dict[str, Any]) -> AsyncIterator[Event]:
        """Yield the events."""
        for event in self._events:
            yield event
        if self._error:
            raise self._error


class Silent(AnswerView):
    """Shows nothing."""

    def write(self, text: str, kind: Kind) -> None:
        """Do nothing."""

    def end_part(self) -> None:
        """Do nothing."""


def messages_after(client: Client, raises: type[BaseException] | None = None) -> list[dict[str, Any]]:
    conversation = Conversation(Settings(model="m"))
    conversation.ask("Hello")
    session = Session(client, conversation, ["m"])
    if raises:
        with pytest.raises(raises):
            session.answer(Silent())
    else:
        session.answer(Silent())
    return conversation.messages[1:]


def finished(reason: Literal["stop", "length", "tool_calls"]) -> Finished:
    return Finished(reason=reason, usage=Usage())


@pytest.mark.parametrize(
    ("client", "raises"),
    [
        (Scripted(CALL, KeyboardInterrupt()), None),
        (Scripted(CALL, RequestFailed("the engine ended")), RequestFailed),
        (Scripted([*CALL, finished("length")]), None),
    ],
)
def test_a_call_that_was_cut_is_left_out(client: Client, raises: type[BaseException] | None) -> None:
    assert messages_after(client, raises) == [{"role": "assistant", "content": "Let me see."}]


def test_complete_calls_stay() -> None:
    events = [Reasoning("Hm"), ToolStart(0, "f", "c"), ToolArguments(0, "{}"), finished("tool_calls")]
    [message] = messages_after(Scripted(events))
    assert message["reasoning_content"] == "Hm"
    assert message["tool_calls"] == [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


def test_ctrl_c_at_the_result_of_a_call_shows_how_to_skip_it(monkeypatch: pytest.MonkeyPatch) -> None:
    typed: Iterator[str | BaseException] = iter(["Hello", KeyboardInterrupt(), "/skip", EOFError()])

    def read(prompt: str) -> str:
        line = next(typed)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    calls: list[Event] = [ToolStart(0, "f", "c"), ToolArguments(0, "{}"), finished("tool_calls")]
    conversation = Conversation(Settings(model="m"))
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as screen:
        chat_until_end(Session(Scripted(calls), conversation, ["m"]), console)
    assert screen.get().count("/skip or Ctrl-D") == 2
    assert "/exit" not in screen.get()
    assert [message["role"] for message in conversation.messages] == ["user"]
