"""``continue_final_message``: cut the rendered text where the last message's content ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fllm.errors import RequestError

_MARKER = "\ue0f7\ue0f8 "
"""Private-use characters that can be found again, and a space, which vanishes if content is trimmed."""


def insert_marker(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the messages with a marker appended to the last one's text.

    Raise `RequestError` if the last message has no text.
    """
    *others, final = messages
    return [*others, {**final, "content": _with_marker(final.get("content"), len(others))}]


def cut_at_marker(rendered: str, messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the rendered text up to the marker; if the template trimmed the content, trim its end too.

    Raise `RequestError` if the text does not contain the last message's content.
    """
    end = rendered.rfind(_MARKER.rstrip())
    content = messages[-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    if end < 0 or text.strip() not in rendered:
        raise RequestError(
            "the chat template does not render the whole final message, so it can't be continued",
            param="continue_final_message",
        )
    return rendered[:end] if rendered.startswith(_MARKER, end) else rendered[:end].rstrip()


def _with_marker(content: object, index: int) -> Any:
    match content:
        case str(text):
            return text + _MARKER
        case [*others, {"text": text}]:
            return [*others, {"type": "text", "text": f"{text}{_MARKER}"}]
        case _:
            raise RequestError(
                "the final message has no text that could be continued", param=f"messages[{index}].content"
            )
