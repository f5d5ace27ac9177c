"""A vision-language model in a real server, with OpenAI's client, against transformers' own generation."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from PIL import Image
from support.server_start import UNQUANTIZED
from support.vision_models import save_vision

from fllm.testing import serving

TOKENS = 10


def data_url(color: str, size: tuple[int, int]) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, openai.OpenAI, Path]]:
    directory = tmp_path_factory.mktemp("vision")
    model = save_vision("qwen2.5-vl", directory)
    with serving(directory, "--port", "0", *UNQUANTIZED) as server:
        yield model, openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0), directory


def ask(client: openai.OpenAI, *parts: Any, **options: Any) -> Any:
    return client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": [*parts]}],
        max_tokens=TOKENS,
        temperature=0.0,
        extra_body={"return_token_ids": True, "min_tokens": TOKENS},
        **options,
    )


def test_a_text_about_images_is_that_of_transformers(
    served: tuple[Any, openai.OpenAI, Path],
) -> None:
    from transformers import AutoImageProcessor

    model, client, directory = served
    parts = [
        image(data_url("red", (60, 40))),
        {"type": "text", "text": "and " * 10},
        image(data_url("blue", (30, 90))),
    ]
    answer = ask(client, *parts)
    processor = AutoImageProcessor.from_pretrained(directory)
    inputs = processor(
        [Image.new("RGB", (60, 40), "red"), Image.new("RGB", (30, 90), "blue")], return_tensors="pt"
    )
    ids = torch.tensor([answer.prompt_token_ids])
    expected = model.generate(
        input_ids=ids,
        **inputs,
        mm_token_type_ids=(ids == model.config.image_token_id).long(),
        max_new_tokens=TOKENS,
        min_new_tokens=TOKENS,
        do_sample=False,
    )
    assert answer.choices[0].token_ids == expected[0, ids.shape[1] :].tolist()
    chunks = list(ask(client, *parts, stream=True))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == answer.choices[0].message.content
    again = ask(client, *parts)
    assert again.choices[0].token_ids == answer.choices[0].token_ids
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    other = ask(client, *parts[:2], image(data_url("green", (30, 90))))
    assert other.usage.prompt_tokens == answer.usage.prompt_tokens
    assert other.usage.prompt_tokens_details.cached_tokens == 0


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png;base64,AAAA", "an image can't be decoded"),
        ("https://example.com/a.png", "this server fetches no images"),
        (data_url("red", (3, 900)), "the model can't take an image"),
    ],
    ids=["damaged", "remote", "too narrow"],
)
def test_a_bad_image_is_rejected(served: tuple[Any, openai.OpenAI, Path], url: str, message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        ask(served[1], image(url))
