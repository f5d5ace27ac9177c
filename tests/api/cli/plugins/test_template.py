"""``furiosa-llm plugins template``: the prompt of a chat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fllm.errors import ConfigError
from fllm.model import locate, model_directory
from fllm.testing import echo_model
from fllm_api.cli.plugins.template import template

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
PLUGIN = f"""
import fllm

@fllm.hookimpl
def fllm_chat_template(context):
    return {{"default": "mine: {TEMPLATE.replace('"', "'")}"}}
"""


def rendered(chat: Any, *arguments: str | Path) -> Result:
    """Return the result of the command for a chat on standard input."""
    return CliRunner().invoke(
        template, [*map(str, arguments)], input=json.dumps(chat), catch_exceptions=False
    )


def test_the_prompt_and_the_winner_are_printed(tmp_path: Path) -> None:
    model = echo_model(tmp_path / "model")
    file, plugin = tmp_path / "chat.jinja", tmp_path / "mine.py"
    file.write_text(f"file: {TEMPLATE}")
    plugin.write_text(PLUGIN)
    messages = [{"role": "user", "content": "Hi"}]
    own = rendered(messages, "--model", model)
    assert f"rendered by the chat template in {model}" in own.stderr
    assert "Hi" in own.stdout
    by_plugin = rendered(messages, "--model", model, "--plugin", plugin)
    assert by_plugin.stdout == "mine: [user]Hi\n"
    assert "rendered by the chat template of the plugin mine (" in by_plugin.stderr
    by_file = rendered(messages, "--model", model, "--plugin", plugin, "--chat-template", file)
    assert by_file.stdout == "file: [user]Hi\n"
    assert f"rendered by --chat-template {file}" in by_file.stderr


def test_a_whole_request_is_rendered_for_the_embedded_model() -> None:
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    done = rendered({"messages": [{"role": "user", "content": "Hi"}], "tools": tools})
    assert "<|im_start|>user\nHi<|im_end|>" in done.stdout
    assert '"name": "get_weather"' in done.stdout


@pytest.mark.parametrize("chat", [{"a": 1}, [{"content": "Hi"}], [], "text"])
def test_what_is_no_chat_is_one_line(chat: Any) -> None:
    with pytest.raises(ConfigError):
        rendered(chat)


def test_a_model_has_a_directory_in_every_form(tmp_path: Path) -> None:
    assert model_directory(str(tmp_path)) == tmp_path
    assert (model_directory() / "tokenizer.json").is_file()
    assert model_directory(locate().location) == model_directory()
