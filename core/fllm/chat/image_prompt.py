"""Prompts with images: render the messages, and replace what stands for each image."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fllm.chat.message_content import IMAGE_MARK
from fllm.errors import RequestError


def count_image_parts(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of parts that stand for images in the messages, which are plain values."""
    contents = (content for message in messages if isinstance(content := message.get("content"), list))
    return sum(part.get("type") == "image" for content in contents for part in content)


def render_with_images(
    render: Callable[[bool], str], messages: Sequence[Mapping[str, Any]], placeholder: str
) -> str:
    """Return the prompt with one ``placeholder`` or `IMAGE_MARK` for each image.

    ``render`` is called with `ChatTemplate.render`'s ``keep_image_parts``: a template that ignores the parts
    gets text in their place. Raise `RequestError` if the numbers differ nevertheless.
    """
    count = count_image_parts(messages)
    for keep_image_parts in (True, False):
        prompt = render(keep_image_parts)
        if (rendered := len(_places(placeholder).findall(prompt))) == count:
            return prompt
    raise RequestError(
        f"the prompt has {rendered} places for {count} images: the chat template does not render them, "
        f"or a text contains {placeholder!r}",
        param="messages",
    )


def insert_images(prompt: str, placeholder: str, texts: Sequence[str]) -> str:
    """Return the prompt with each placeholder replaced by the text of its image, in order."""
    remaining: Iterator[str] = iter(texts)
    return _places(placeholder).sub(lambda _: next(remaining), prompt)


def _places(placeholder: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(placeholder)}|{IMAGE_MARK}")
