"""Chat requests with images, against a backend that prepares them without a model."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import Any

import httpx
import pytest
from support.api_fakes import a_server, backend_of, chat, error_of
from support.image_fakes import PARTS, TEXT_ONLY, an_image_server

from fllm.errors import RequestError
from fllm.requests.chat import ChatMessage, ContentPart
from fllm.values import PreparedImages
from fllm_api.app_state import AppState
from fllm_api.intake import images
from fllm_api.intake.images import read_images
from fllm_api.media.remote_file import MAX_IMAGE_BYTES


def image(text: str) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(text.encode()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*parts]}


def prompt_of(server: AppState) -> str:
    return server.tokenizer.decode(backend_of(server).prompts[-1].token_ids, skip_special_tokens=False)


def rejected(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 400
    return error_of(response)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (PARTS, "a[(one)]b|[(two)]c|"),
        (TEXT_ONLY, "a\n(one)\nb|(two)\nc|"),
        (
            "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}|{% endfor %}",
            "a(one)b|(two)c|",
        ),
    ],
    ids=["parts", "text only", "parts of text only"],
)
def test_the_text_of_each_image_takes_its_place(template: str, expected: str) -> None:
    server = an_image_server(template)
    messages = [user(text("a"), image("one"), text("b")), user(image("two"), text("c"))]
    assert chat(server, messages=messages).status_code == 200
    assert prompt_of(server) == expected
    assert backend_of(server).prompts[-1].images == ("one", "two")


def test_a_final_message_of_the_assistant_may_be_an_image() -> None:
    server = an_image_server()
    messages = [user(text("a")), {"role": "assistant", "content": [image("one")]}]
    assert chat(server, messages=messages).status_code == 200
    assert prompt_of(server) == "a|[(one)]|"


def test_a_url_may_be_text() -> None:
    server = an_image_server()
    part = image("one") | {"image_url": image("one")["image_url"]["url"]}
    assert chat(server, messages=[user(part)]).status_code == 200
    assert prompt_of(server) == "[(one)]|"


def test_a_request_without_images_has_none() -> None:
    server = an_image_server()
    assert chat(server, messages=[user(text("a"))]).status_code == 200
    assert backend_of(server).prompts[-1].images == ()


@pytest.mark.parametrize(
    ("parts", "message", "param"),
    [
        ([{"type": "image_url"}], "must have an `image_url` with a `url`", "messages[0].content[0]"),
        (
            [{"type": "image_url", "image_url": {"url": ""}}],
            "must have an `image_url`",
            "messages[0].content[0]",
        ),
        (
            [text("a"), {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
            "this server fetches no images",
            "messages[0].content[1].image_url",
        ),
        ([image("x")] * 3, "the messages have 3 images; at most 2 are allowed", "messages"),
        ([image("broken")], "an image can't be decoded", "messages"),
        ([image("x"), text("<image>")], "the prompt has 2 places for 1 images", "messages"),
        ([{"type": "image"}], "those of images are 'image_url'", "messages[0].content[0].type"),
        ([image("x"), {"type": "image"}], "those of images are", "messages[0].content[1].type"),
        (
            [{"type": "input_audio"}],
            "content parts of type 'input_audio' are not supported",
            "messages[0].content[0].type",
        ),
    ],
)
def test_what_is_rejected(parts: list[Any], message: str, param: str) -> None:
    error = rejected(chat(an_image_server(max_images=2), messages=[user(*parts)]))
    assert message in error["message"]
    assert error["param"] == param


def test_a_prompt_with_images_is_not_truncated() -> None:
    error = rejected(chat(an_image_server(), messages=[user(image("x"))], truncate_prompt_tokens=3))
    assert error["param"] == "truncate_prompt_tokens"


def test_a_model_without_images_rejects_the_parts_of_templates() -> None:
    error = rejected(chat(a_server(), messages=[user({"type": "image"}, text("x"))]))
    assert error["param"] == "messages[0].content[0].type"


def test_a_model_without_images_rejects_them() -> None:
    error = rejected(chat(a_server(), messages=[user(image("x"))]))
    assert (
        error["message"] == "content parts of type 'image_url' are not supported: the model accepts text only"
    )
    assert error["param"] == "messages[0].content[0].type"


async def read(server: AppState, *urls: str) -> PreparedImages:
    parts = [ContentPart("image_url", image_url=url) for url in urls]
    return await read_images([ChatMessage(role="user", content=parts)], server, "client")


def test_fetched_images_hold_memory_until_they_are_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    server = an_image_server(allowed_media_domains=("*",))
    memory = server.image_memory
    free: list[int] = []

    def fake_fetch(url: str, *, max_bytes: int, **_: Any) -> bytes:
        free.append(memory.free)
        if url.endswith("missing"):
            raise RequestError("missing", param="url")
        return url.encode()

    monkeypatch.setattr(images, "fetch", fake_fetch)
    embedded = image("one")["image_url"]["url"]
    prepared = asyncio.run(read(server, "http://a", embedded, "http://b"))
    assert prepared.keys == ("http://a", "one", "http://b")
    assert free == [memory.units - 2 * MAX_IMAGE_BYTES] * 2
    monkeypatch.setattr(images, "MAX_PROMPT_BYTES", 9)
    with pytest.raises(RequestError, match="more than 9 bytes together"):
        asyncio.run(read(server, "http://long", embedded))
    with pytest.raises(RequestError, match="missing"):
        asyncio.run(read(server, "http://missing"))
    assert memory.free == memory.units


def test_a_cancelled_request_holds_memory_until_its_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    server = an_image_server(allowed_media_domains=("*",))
    memory, ends = server.image_memory, threading.Event()

    def fake_fetch(_: str, **__: Any) -> bytes:
        ends.wait(10)
        return b"late"

    monkeypatch.setattr(images, "fetch", fake_fetch)

    async def cancel() -> None:
        reading = asyncio.create_task(read(server, "http://a"))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert memory.free == memory.units - MAX_IMAGE_BYTES
        ends.set()
        async with asyncio.timeout(5):
            while memory.free != memory.units:
                await asyncio.sleep(0.01)

    asyncio.run(cancel())
