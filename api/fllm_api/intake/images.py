"""The images of a chat request: read them, and put what stands for them into the prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fllm.chat import insert_images, render_with_images
from fllm.concurrency.timeout_executor import TaskTimeout, TooManyHung
from fllm.errors import RequestError
from fllm.interfaces import PreparesImages
from fllm.requests.chat import ChatMessage, ContentPart
from fllm.values import PreparedImages
from fllm_api.app_state import AppState
from fllm_api.media.data_url import read_data_url
from fllm_api.media.remote_file import FETCH_SECONDS, MAX_IMAGE_BYTES, MAX_PROMPT_BYTES, fetch

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
    async with _files(parts, server, client) as files:
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


@asynccontextmanager
async def _files(
    parts: Sequence[tuple[str, str]], server: AppState, client: str
) -> AsyncGenerator[Sequence[bytes]]:
    """Return the files of the images, which are in their URLs or are fetched."""
    files = {
        param: read_data_url(url, max_bytes=MAX_IMAGE_BYTES, param=param)
        for param, url in parts
        if url[:5].lower() == "data:"
    }
    remote = {param: url for param, url in parts if param not in files}
    async with _fetched(remote, server, client) as fetched:
        files |= fetched
        yield [files[param] for param, _ in parts]


@asynccontextmanager
async def _fetched(
    urls: Mapping[str, str], server: AppState, client: str
) -> AsyncGenerator[Mapping[str, bytes]]:
    """Return the files that are behind the URLs. Hold memory for them, also while threads still fetch one."""
    if not urls:
        yield {}
        return
    memory = server.image_memory
    max_bytes = min(MAX_IMAGE_BYTES, memory.units // len(urls))
    await memory.acquire(client, held := max_bytes * len(urls))
    fetching = asyncio.gather(
        *(_fetch(url, server, client, max_bytes, param) for param, url in urls.items()),
        return_exceptions=True,
    )
    try:
        files = {}
        for param, result in zip(urls, await asyncio.shield(fetching), strict=True):
            if isinstance(result, BaseException):
                raise result
            files[param] = result
        if sum(map(len, files.values())) > MAX_PROMPT_BYTES:
            raise RequestError(
                f"the images that are fetched have more than {MAX_PROMPT_BYTES} bytes together",
                param="messages",
            )
        yield files
    finally:
        if fetching.done():
            memory.release(client, held)
        else:  # the request was cancelled
            fetching.add_done_callback(lambda _: memory.release(client, held))


async def _fetch(url: str, server: AppState, client: str, max_bytes: int, param: str) -> bytes:
    domains = server.config.allowed_media_domains
    get = partial(fetch, url, domains=domains, max_bytes=max_bytes, param=param)
    try:
        return await server.image_threads.run(get, client=client, time_limit=2 * FETCH_SECONDS)
    except (TaskTimeout, TooManyHung):  # the resolver of names has no time limit
        raise RequestError("the image can't be fetched: it takes too long", param=param) from None


def _without_urls(message: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(content := message.get("content"), list):
        return message
    parts = [{"type": "image"} if part.get("type") == IMAGE_TYPE else part for part in content]
    return {**message, "content": parts}
