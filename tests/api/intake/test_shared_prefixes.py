"""Prefixes that the operator makes public, as tokens of the model's own prompts."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path

import pytest
from support.api_fakes import a_server

from fllm.chat import ChatTemplate
from fllm.concurrency.thread_watchdog import ThreadWatchdog
from fllm.errors import ConfigError
from fllm_api.app_state import AppState
from fllm_api.intake import shared_prefixes
from fllm_api.intake.shared_prefix_file import read_shared_prefix
from fllm_api.intake.shared_prefixes import daily_prefixes, tokenize_shared_prefix


def with_template(source: str) -> AppState:
    return a_server(template=ChatTemplate.compile({"default": source}, special_tokens={}))


def texts(server: AppState, file: Path) -> dict[str, str]:
    """Return the texts of the prefixes that a file gives."""
    prefixes = tokenize_shared_prefix(read_shared_prefix(file), server)
    return {kind: server.tokenizer.decode(ids, skip_special_tokens=False) for kind, ids in prefixes.items()}


def write(directory: Path, text: str, name: str = "prefix.txt") -> Path:
    file = directory / name
    file.write_text(text)
    return file


def test_a_text_is_a_system_prompt_and_the_beginning_of_completions(tmp_path: Path) -> None:
    file = write(tmp_path, "Be brief.\n")
    assert texts(a_server(), file) == {"chats": "<system>Be brief.<user>", "completions": "Be brief."}


def test_without_a_chat_template_a_text_is_the_beginning_of_completions(tmp_path: Path) -> None:
    assert texts(a_server(template=None), write(tmp_path, "Be brief.")) == {"completions": "Be brief."}


def test_json_is_the_beginning_of_chats(tmp_path: Path) -> None:
    chat = '{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}'
    assert texts(a_server(), write(tmp_path, chat, "chat.json")) == {
        "chats": "<system>Be brief.<user>Hi<assistant>"
    }


def test_a_slow_template_is_rendered_at_the_start_and_at_midnight(tmp_path: Path) -> None:
    loops = "{% for i in range(99999) %}{% endfor %}" * 80
    source = "{% if messages[0].content == 'Be brief.' %}" + loops + "{% endif %}{{ messages[0].content }}"
    watchdog = ThreadWatchdog(cpu_seconds=60, memory=1 << 30)
    template = ChatTemplate.compile({"default": source}, special_tokens={}, watchdog=watchdog)
    file = write(tmp_path, "Be brief.")

    async def on_the_event_loop() -> dict[str, str]:
        return texts(a_server(template=template), file)

    assert asyncio.run(on_the_event_loop())["chats"] == "Be brief."


def test_tools_and_template_variables_are_rendered_as_in_a_request(tmp_path: Path) -> None:
    server = with_template(
        "{{ tools | map(attribute='function') | map(attribute='name') | join }}"
        "{{ note }}{{ reasoning_effort }}"
        "{% for message in messages %}{{ message.content }}{% endfor %}"
    )
    chat = """{"messages": [{"role": "system", "content": "S"}], "chat_template_kwargs": {"note": "N"},
        "tools": [{"type": "function", "function": {"name": "find"}}], "reasoning_effort": "low"}"""
    assert texts(server, write(tmp_path, chat, "chat.json")) == {"chats": "findNlowS"}


def test_a_token_that_depends_on_what_follows_is_left_out(tmp_path: Path) -> None:
    server = with_template("{{ messages[-1].content }}{{ messages[0].content }}")
    assert texts(server, write(tmp_path, "Be brief."))["chats"] == ""


def test_messages_that_the_template_rejects_are_an_error(tmp_path: Path) -> None:
    server = with_template("{{ raise_exception('no system prompts') }}")
    file = write(tmp_path, "Be brief.")
    with pytest.raises(ConfigError, match=rf"--shared-prefix {file}: .*no system prompts"):
        texts(server, file)


def test_json_requires_a_chat_template(tmp_path: Path) -> None:
    chat = '{"messages": [{"role": "system", "content": "Be brief."}]}'
    with pytest.raises(ConfigError, match="no chat template"):
        texts(a_server(template=None), write(tmp_path, chat, "chat.json"))


def test_prefixes_are_rendered_again_on_the_next_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Calendar(date):
        days = (date(2026, 1, 1),)

        @classmethod
        def today(cls) -> date:
            return cls.days[0]

    rendered: list[int] = []

    def tokenize(prefix: object, server: object) -> dict[str, list[int]]:
        rendered.append(len(rendered))
        return {"chats": [*rendered]}

    monkeypatch.setattr(shared_prefixes, "date", Calendar)
    monkeypatch.setattr(shared_prefixes, "tokenize_shared_prefix", tokenize)
    prefixes = daily_prefixes([read_shared_prefix(write(tmp_path, "Be brief."))], a_server())
    assert [prefixes(), prefixes()] == [[[0]], [[0]]]
    Calendar.days = (date(2026, 1, 2),)
    assert [prefixes(), prefixes()] == [[[0, 1]], [[0, 1]]]
