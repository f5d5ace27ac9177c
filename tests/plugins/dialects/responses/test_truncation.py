"""A conversation that is too long loses its oldest messages, but no more than it must."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from fllm import ChatMessage, ChatRequest, FunctionCall, Generation, Serving, ToolCall
from fllm.errors import ContextTooLong
from fllm_dialects.responses.truncation import droppable_groups, read_within_context

CALL = [ToolCall(FunctionCall("f"))]


def messages(roles: str) -> list[ChatMessage]:
    """Return a message for each letter: system, user, assistant, call, result."""
    names = {"s": "system", "u": "user", "a": "assistant", "c": "assistant", "r": "tool"}
    return [
        ChatMessage(role=names[letter], content=letter, tool_calls=CALL if letter == "c" else None)
        for letter in roles
    ]


@pytest.mark.parametrize(
    ("roles", "groups"),
    [
        ("", []),
        ("s", []),
        ("u", []),
        ("su", []),
        ("suau", [[1, 2]]),
        ("auau", [[0], [1, 2]]),
        ("sucrcrau", [[1, 2, 3, 4, 5, 6]]),
        ("sucrrcrcr", [[2, 3, 4], [5, 6]]),
        ("uaucrcr", [[0, 1], [3, 4]]),
        ("rcr", [[0]]),
        ("usu", [[0]]),
    ],
)
def test_groups_belong_together_and_the_last_turn_stays(roles: str, groups: list[list[int]]) -> None:
    assert droppable_groups(messages(roles)) == groups


class Server:
    """Reads chats of up to a number of messages."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.reads = 0

    async def read_chat(self, request: ChatRequest) -> Generation:
        """Return the messages of a request that is short enough."""
        self.reads += 1
        if len(request.messages) > self.most:
            raise ContextTooLong("too long")
        return cast("Generation", "".join(str(message.content) for message in request.messages))


def kept(server: Server, roles: str) -> Any:
    """Return the letters of the messages that are kept."""
    chat = ChatRequest(messages=messages(roles))
    return asyncio.run(read_within_context(cast("Serving", server), chat))


@pytest.mark.parametrize(
    ("most", "expected"),
    [(9, "suauaucra"), (8, "suaucra"), (7, "suaucra"), (6, "sucra"), (5, "sucra"), (4, "sua"), (3, "sua")],
)
def test_as_few_messages_as_possible_are_left_out(most: int, expected: str) -> None:
    assert kept(Server(most), "suauaucra") == expected


def test_what_does_not_fit_at_all_is_an_error() -> None:
    with pytest.raises(ContextTooLong):
        kept(Server(2), "suauaucra")


def test_a_long_conversation_is_read_a_few_times() -> None:
    server = Server(601)
    assert kept(server, "s" + "ua" * 1000 + "u") == "s" + "ua" * 299 + "u"
    assert server.reads < 14
