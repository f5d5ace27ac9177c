"""Conversations of the terminal chat: what is sent, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from fllm.errors import ConfigError
from fllm_terminal.conversation import Answer, Conversation, ToolCall
from fllm_terminal.settings import Sampling, Settings


def conversation() -> Conversation:
    """Return a conversation with one message and one answer."""
    made = Conversation(Settings(model="m", system="Be short.", sampling=Sampling(seed=7)))
    made.ask("Hi")
    made.add(Answer(text="Hello", reasoning="Greet."))
    return made


def test_the_body_has_settings_and_messages() -> None:
    assert conversation().body() == {
        "model": "m",
        "seed": 7,
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello", "reasoning_content": "Greet."},
        ],
    }


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    made = conversation()
    made.settings.tools = [{"type": "function", "function": {"name": "f"}}]
    made.add(Answer(calls=[ToolCall("call_0", "f", "{}")]))
    made.add_result(ToolCall("call_0", "f"), "1")
    made.save(tmp_path / "chat.json")
    loaded = Conversation(Settings(model="m"))
    loaded.load(tmp_path / "chat.json")
    assert loaded.body() == made.body()


@pytest.mark.parametrize(
    "text", ["{}", "[]", "nonsense", '{"messages": [{"content": "x"}]}', '{"messages": [1]}']
)
def test_other_files_change_nothing(text: str, tmp_path: Path) -> None:
    made = conversation()
    before = made.body()
    (tmp_path / "chat.json").write_text(text)
    with pytest.raises(ConfigError, match="is not a saved conversation"):
        made.load(tmp_path / "chat.json")
    assert made.body() == before


def test_a_message_is_answered_again_or_taken_back() -> None:
    made = conversation()
    assert made.unanswer()
    assert made.body()["messages"][1:] == [{"role": "user", "content": "Hi"}]
    assert made.take_back()
    assert made.body()["messages"] == [{"role": "system", "content": "Be short."}]
    assert not made.take_back()
    assert not made.unanswer()


def test_an_image_goes_with_the_next_message_only(tmp_path: Path) -> None:
    made = conversation()
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    made.attach_image(tmp_path / "a.png")
    made.ask("What is it?")
    made.ask("And now?")
    image, text = made.messages[-2]["content"]
    assert image["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    assert text == {"type": "text", "text": "What is it?"}
    assert made.messages[-1]["content"] == "And now?"


def test_an_empty_answer_is_no_message() -> None:
    made = conversation()
    made.add(Answer())
    assert len(made.messages) == 2
