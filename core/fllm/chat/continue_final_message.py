"""Let the model go on with the last message: find where its content ends in the rendered text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fllm.errors import RequestError

_MARK = "\ue0f7\ue0f8 "
"""Private-use characters, to be found again, and a space, which is gone if the template trims content."""


def mark(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The same messages with a mark behind the last one's text."""
    *others, final = messages
    return [*others, {**final, "content": _marked(final.get("content"), len(others))}]


def cut(rendered: str, messages: Sequence[Mapping[str, Any]]) -> str:
    """The rendered text up to the mark, without the space that a trimming template would take away."""
    at = rendered.rfind(_MARK.rstrip())
    content = messages[-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    if at < 0 or text.strip() not in rendered:
        raise RequestError(
            "the chat template does not show the whole final message, so it can't be continued",
            param="continue_final_message",
        )
    return rendered[:at] if rendered.startswith(_MARK, at) else rendered[:at].rstrip()


def _marked(content: object, index: int) -> Any:
    match content:
        case str(text):
            return text + _MARK
        case [*others, {"text": text}]:
            return [*others, {"type": "text", "text": f"{text}{_MARK}"}]
        case _:
            raise RequestError(
                "the final message has no text that could be continued", param=f"messages[{index}].content"
            )
