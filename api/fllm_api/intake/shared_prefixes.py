"""The prompt prefixes that the operator has made public, as tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import lru_cache

from fllm.errors import ConfigError, RequestError
from fllm.requests.chat import ChatMessage, ChatRequest
from fllm_api.app_state import AppState
from fllm_api.intake.chat import render_chat
from fllm_api.intake.prefix_cache import common_length
from fllm_api.intake.shared_prefix_file import SharedChat, SharedPrefix

CONTINUATIONS = ("a", "1")
"""Two texts without a common beginning: what their prompts have in common does not depend on them."""


def daily_prefixes(prefixes: Sequence[SharedPrefix], server: AppState) -> Callable[[], list[list[int]]]:
    """Return a function that returns the token ids of all prefixes, as they are today.

    Some chat templates write the date into the system prompt. Raise `ConfigError` if the chat template
    rejects one of the prefixes.
    """

    @lru_cache(maxsize=1)
    def token_ids(day: date) -> list[list[int]]:  # noqa: ARG001  (it is the key of the cache)
        return [ids for prefix in prefixes for ids in tokenize_shared_prefix(prefix, server).values()]

    token_ids(date.today())
    return lambda: token_ids(date.today())


def tokenize_shared_prefix(prefix: SharedPrefix, server: AppState) -> dict[str, list[int]]:
    """Return the token ids with which prompts begin that contain the prefix: of chats, and of completions.

    They are what the prompts of two continuations have in common. So the chat template may write something
    before and after the messages, and a token that crosses the end of the text is left out. Raise
    `ConfigError` if the chat template rejects the messages.
    """
    prefixes = {}
    if prefix.text is None or server.template is not None:
        try:
            chats = [_chat_ids(prefix.chat, text, server) for text in CONTINUATIONS]
        except RequestError as error:
            raise ConfigError(f"{prefix.where}: {error.message}") from error
        prefixes["chats"] = _common(chats)
    if prefix.text is not None:
        texts = [prefix.text + text for text in CONTINUATIONS]
        prefixes["completions"] = _common(
            [server.tokenizer.encode(text, add_special_tokens=True) for text in texts]
        )
    return prefixes


def _common(prompts: list[list[int]]) -> list[int]:
    first, second = prompts
    return first[: common_length(first, second)]


def _chat_ids(chat: SharedChat, text: str, server: AppState) -> list[int]:
    """Return the prompt of the chat with one more message, of the role whose turn it is."""
    answers = chat.messages[-1].role in ("user", "tool", "function")
    body = ChatRequest(
        model="",
        messages=[*chat.messages, ChatMessage(role="assistant" if answers else "user", content=text)],
        tools=chat.tools,
        chat_template_kwargs=chat.chat_template_kwargs,
        reasoning_effort=chat.reasoning_effort,
        add_generation_prompt=False,
    )
    with ThreadPoolExecutor(1) as thread:  # a template that is slow for an event loop raises `SlowTemplate`
        prompt = thread.submit(render_chat, body, server).result()
    return server.tokenizer.encode(prompt, add_special_tokens=False)
