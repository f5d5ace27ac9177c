"""The loop of the chat."""

from __future__ import annotations

from io import StringIO
from typing import cast

import pytest
from rich.console import Console

from fllm_terminal import loop
from fllm_terminal.session import Session


def test_ctrl_c_while_a_command_prints_does_not_end_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(text: str) -> object:
        raise KeyboardInterrupt(text)

    lines = iter(["/set", "/set", None])
    monkeypatch.setattr(loop, "find_command", interrupted)
    monkeypatch.setattr(loop, "_read_message", lambda _: next(lines))
    output = StringIO()

    class Chat:
        class conversation:
            class settings:
                model = "m"

    loop.chat_until_end(cast("Session", Chat), Console(file=output))
    assert output.getvalue().count("Ctrl-D leaves") == 2
