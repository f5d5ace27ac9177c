"""A server whose backend prepares images without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from support.api_fakes import FakeBackend, a_server

from fllm.chat import ChatTemplate
from fllm.errors import RequestError
from fllm.values import ImageSupport, PreparedImages
from fllm_api.app_state import AppState

PLACEHOLDER = "<image>"
PARTS = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'image' %}[<image>]{% else %}{{ part.text }}{% endif %}{% endfor %}|{% endfor %}"
)
TEXT_ONLY = "{% for message in messages %}{{ message.content }}|{% endfor %}"


class ImageBackend(FakeBackend):
    """Stands for an image by the letters of its file."""

    async def prepare_images(self, images: Sequence[bytes], client: str) -> PreparedImages:
        if b"broken" in images:
            raise RequestError("an image can't be decoded", param="messages")
        keys = tuple(image.decode() for image in images)
        return PreparedImages(keys, tuple(f"({key})" for key in keys))


def an_image_server(template: str = PARTS, *, parts: Any = None, **config: Any) -> AppState:
    """Return a server for a model that takes images; ``parts`` are further ones of `a_server`."""
    return a_server(
        backend=ImageBackend([[1]]),
        template=ChatTemplate.compile({"default": template}, special_tokens={}),
        card={"images": ImageSupport(PLACEHOLDER)},
        config=config,
        **(parts or {}),
    )
