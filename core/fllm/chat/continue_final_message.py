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
    # Templates put what precedes the tag elsewhere, or leave it out.
    answer = text.rpartition("</think>")[2]
    if end < 0 or answer.strip() not in rendered:
        raise RequestError(
            "the chat template does not render the whole final message, so it can't be continued",
            param="continue_final_message",
        )
    prompt = rendered[:end] if rendered.startswith(_MARKER, end) else rendered[:end].rstrip()
    return _without_empty_reasoning(prompt) if text.lstrip().startswith("<think>") else prompt


def _without_empty_reasoning(prompt: str) -> str:
    """Return the prompt without an empty ``<think>`` block before the final message's own ``<think>``."""
    before, tag, reasoning = prompt.rpartition("<think>")
    block = before.rstrip().removesuffix("</think>").rstrip()
    return block + reasoning if before.rstrip().endswith("</think>") and block.endswith(tag) else prompt


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
