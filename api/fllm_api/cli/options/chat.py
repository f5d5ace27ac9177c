"""Options of chats: templates and parsers."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

import rich_click as click

from fllm.plugins.parser_detection import AUTO, NO_PARSER
from fllm_api.cli.options.values import FILE
from fllm_api.cli.param_types import Json, NonEmptyText, RegisteredName
from fllm_api.config import ContentFormat, ReasoningField

_chat = partial(click.RichOption, panel="Chat")

CHAT_OPTIONS = [
    _chat(
        ["--chat-template"],
        type=FILE,
        show_default="the tokenizer's",
        help="Jinja file with the chat template.",
    ),
    _chat(
        ["--chat-template-content-format"],
        type=click.Choice(get_args(ContentFormat)),
        default="auto",
        help="Form of message content that the template expects. auto: detect it.",
    ),
    _chat(
        ["--default-chat-template-kwargs"],
        type=Json(dict[str, Any], '{"enable_thinking": false}'),
        help="Variables for the chat template. Those of a request take precedence.",
    ),
    _chat(
        ["--tool-call-parser"],
        type=RegisteredName("tool_parsers", AUTO, NO_PARSER),
        default=AUTO,
        help="Parser of tool calls. auto: the one that fits the chat template, if any. "
        "none: the server's own format.",
    ),
    _chat(["--enable-auto-tool-choice"], is_flag=True, help="Implied; has no effect."),
    _chat(
        ["--exclude-tools-when-tool-choice-none/--no-exclude-tools-when-tool-choice-none"],
        default=True,
        help='Leave tools out of the prompt if tool_choice is "none".',
    ),
    _chat(
        ["--reasoning-parser"],
        type=RegisteredName("reasoning_parsers", AUTO, NO_PARSER),
        default=AUTO,
        help="Parser of reasoning. auto: the one that fits the chat template, if any.",
    ),
    _chat(["--enable-reasoning"], is_flag=True, help="Implied; has no effect."),
    _chat(
        ["--reasoning-field"],
        type=click.Choice(get_args(ReasoningField)),
        default="reasoning_content",
        help="Field of responses that holds the reasoning.",
    ),
    _chat(
        ["--trust-request-chat-template"],
        is_flag=True,
        help="Allow chat_template in requests. It is rendered in a separate process, with limits.",
    ),
    _chat(
        ["--allow-special-tokens-in-text"],
        is_flag=True,
        help="Read special tokens in the text of messages as tokens, not as text.",
    ),
    _chat(["--response-role"], type=NonEmptyText(), default="assistant", help="Role of chat responses."),
]
