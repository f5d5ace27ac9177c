"""The images of a chat request: read them, and put what stands for them into the prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from fllm.chat import insert_images, render_with_images
from fllm.concurrency.timeout_executor import TaskTimeout, TooManyHung
from fllm.errors import RequestError
from fllm.interfaces import PreparesImages
from fllm.values import PreparedImages
from fllm_api.app_state import AppState
from fllm_api.media.data_url import read_data_url
from fllm_api.media.remote_file import FETCH_SECONDS, MAX_IMAGE_BYTES, fetch
from fllm_api.protocol.chat import ChatMessage, ContentPart

IMAGE_TYPE = "image_url"


def has_images(messages: Sequence[ChatMessage]) -> bool:
    """Return whether a message has an image."""
    return any(
        part.type == IMAGE_TYPE
        for message in messages
        if isinstance(message.content, list)
        for part in message.content
    )


async def read_images(messages: Sequence[ChatMessage], server: AppState, client: str) -> PreparedImages:
    """Return the images of all messages, prepared for the model.

    Raise `RequestError` if the model takes no images, or if an image can't be read.
    """
    parts = list(_image_parts(messages))
    param, _ = parts[0]
    if server.card.images is None or not isinstance(server.backend, PreparesImages):
        raise RequestError(
            f"content parts of type {IMAGE_TYPE!r} are not supported: the model accepts text only",
            param=param.removesuffix(f".{IMAGE_TYPE}") + ".type",
        )
    if len(parts) > server.config.max_images:
        raise RequestError(
            f"the messages have {len(parts)} images; at most {server.config.max_images} are allowed "
            "(--limit-mm-per-prompt)",
            param="messages",
        )
    files = await asyncio.gather(*(_read(url, server, client, param) for param, url in parts))
    return await server.backend.prepare_images(files, client)


def replace_urls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with a part as chat templates take it in place of each image."""
    return [_without_urls(message) for message in messages]


def render_images(
    render: Callable[[bool], str],
    messages: Sequence[dict[str, Any]],
    images: PreparedImages,
    server: AppState,
) -> str:
    """Return the prompt; ``render`` renders the messages with or without ``keep_image_parts``."""
    assert server.card.images, "read_images rejects images otherwise"
    placeholder = server.card.images.placeholder
    return insert_images(render_with_images(render, messages, placeholder), placeholder, images.texts)


def _image_parts(messages: Sequence[ChatMessage]) -> Iterator[tuple[str, str]]:
    """Yield the path and the URL of each image."""
    for i, message in enumerate(messages):
        for j, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if part.type == IMAGE_TYPE:
                yield f"messages[{i}].content[{j}].{IMAGE_TYPE}", _url(part, f"messages[{i}].content[{j}]")


def _url(part: ContentPart, path: str) -> str:
    url = part.image_url if isinstance(part.image_url, str) or part.image_url is None else part.image_url.url
    if not url:
        raise RequestError(f"a part of type {IMAGE_TYPE!r} must have an `image_url` with a `url`", param=path)
    return url


async def _read(url: str, server: AppState, client: str, param: str) -> bytes:
    if url[:5].lower() == "data:":
        return read_data_url(url, max_bytes=MAX_IMAGE_BYTES, param=param)
    config = server.config
    get = partial(fetch, url, domains=config.allowed_media_domains, max_bytes=MAX_IMAGE_BYTES, param=param)
    try:
        return await server.image_threads.run(get, client=client, time_limit=2 * FETCH_SECONDS)
    except (TaskTimeout, TooManyHung):  # the resolver of names has no time limit
        raise RequestError("the image can't be fetched: it takes too long", param=param) from None


def _without_urls(message: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(content := message.get("content"), list):
        return message
    parts = [{"type": "image"} if part.get("type") == IMAGE_TYPE else part for part in content]
    return {**message, "content": parts}
