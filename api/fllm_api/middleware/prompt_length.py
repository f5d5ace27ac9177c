"""Middleware that refuses a prompt that cannot fit into the context, while its body is read."""

from __future__ import annotations

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPReceiveMessage, Receive, Scope, Send, WebSocketReceiveMessage

from fllm.errors import ContextTooLong
from fllm.serving import USES_ENGINE
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard
from fllm_api.limits.prompt_scanner import PromptScanner

PROMPT_IS_TEXT = {**USES_ENGINE, "prompt_is_text": True}
"""The ``opt`` of a handler that needs the engine and whose prompt is the text of its field ``prompt``."""


class PromptLengthMiddleware(ASGIMiddleware):
    """Counts the characters of a large body's prompt and refuses those that need too many tokens."""

    def __init__(self, tokenizer: Tokenizer, card: ModelCard) -> None:
        self._max_model_len = card.max_model_len
        self._max_characters = tokenizer.max_text_length(card.max_model_len)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Check one request."""
        checked = scope["route_handler"].opt.get("prompt_is_text") and self._may_be_too_long(scope)
        await next_app(scope, self._checked(receive) if checked else receive, send)

    def _may_be_too_long(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length")
        return b"transfer-encoding" in headers if length is None else int(length) > self._max_characters

    def _checked(self, receive: Receive) -> Receive:
        scanner = PromptScanner()

        async def receive_checked() -> HTTPReceiveMessage | WebSocketReceiveMessage:
            message = await receive()
            if message["type"] == "http.request":
                scanner.feed(message["body"])
                if scanner.characters > self._max_characters:
                    raise ContextTooLong.for_prompt(
                        self._max_model_len,
                        f"the prompt has more than {self._max_characters} characters, which are at least "
                        f"{self._max_model_len} tokens",
                        param="prompt",
                    )
            return message

        return receive_checked
