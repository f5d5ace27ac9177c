"""Images in prompts, against transformers' own processors and forward passes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.vision_models import VISION_MODELS, save_vision
from tokenizers import Tokenizer

from fllm.batching.runner import PromptImages, Row
from fllm.chat import insert_images
from fllm.config import BackendConfig, Device
from fllm.errors import BackendUnavailable, RequestError
from fllm.values import SamplingParams
from fllm_backends.torch.images import processor
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner

BLOCK_SIZE = 4
TOLERANCE = 1e-4
GENERATED = 5
FAMILIES = [name for name in VISION_MODELS if name != "mistral3"]
"""Pixtral's processor needs torchvision."""


def image(width: int, height: int, seed: int = 0, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


class Served:
    """A model with images in a runner, and the same model in transformers."""

    def __init__(self, name: str, directory: Path) -> None:
        self.model = save_vision(name, directory)
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        config = BackendConfig(
            model=str(directory), quantization="none", model_impl="transformers", devices=(Device("cpu"),)
        )
        self.runner = TorchRunner(read_torch_config(config), Device("cpu"), 3)
        card = self.runner.load(lambda _: None)
        assert card.images
        self.placeholder = card.images.placeholder
        self.runner.allocate(BLOCK_SIZE)

    def prompt(self, text: str, *files: bytes) -> tuple[list[int], PromptImages]:
        """Return the tokens of a text with images at each ``@``, and the images."""
        prepared = self.runner.prepare_images(files)
        expanded = insert_images(text.replace("@", self.placeholder), self.placeholder, prepared.texts)
        ids = self.tokenizer.encode(expanded, add_special_tokens=False).ids
        return ids, self.runner.take_images(prepared.keys, ids)

    def logprobs(self, ids: list[int], images: Any) -> torch.Tensor:
        """Return the log-probabilities of each next token, by one pass of transformers."""
        inputs = images.processed.inputs if images else {}
        kinds = {"mm_token_type_ids": (torch.tensor([ids]) == self.runner._image_token).long()}
        if "gemma3" in self.model.config.model_type:
            kinds = {"token_type_ids": kinds["mm_token_type_ids"]}
        elif "qwen" not in self.model.config.model_type:
            kinds = {}
        used = {key: value for key, value in inputs.items() if key not in ("rows", "cols", "num_patches")}
        with torch.inference_mode():
            logits = self.model(input_ids=torch.tensor([ids]), **used, **(kinds if images else {})).logits
        return logits[0].float().log_softmax(-1)


def a_row(ids: list[int], images: PromptImages | None, start: int, count: int, index: int) -> Row:
    return Row(
        token_ids=ids, prompt_length=len(ids), start=start, count=count, slot=index, seed=0, images=images,
        block_table=[3 * block + index for block in range(60)], sample=start + count == len(ids),
        sampling=SamplingParams(max_tokens=99, temperature=0.0, logprobs=0),
    )  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(request.param, tmp_path_factory.mktemp("vision"))
    yield made
    made.runner.close()


def test_texts_and_logprobs_are_those_of_transformers(served: Served) -> None:
    """A prompt with two images and one without, generated together."""
    first, images = served.prompt("user: a@b@cdefg\n", image(60, 40), image(30, 90, 1, "JPEG"))
    second = served.tokenizer.encode("user: no image\n", add_special_tokens=False).ids
    rows = [
        a_row(first, images, 0, images.end, 0),
        a_row(second, None, 0, 5, 1),
    ]
    served.runner.execute(rows)
    done = [images.end, 5]
    for _ in range(GENERATED):
        rows = [
            a_row(ids, each, start, len(ids) - start, index)
            for index, (ids, each, start) in enumerate([(first, images, done[0]), (second, None, done[1])])
        ]
        for ids, each, result in zip(
            (first, second), (images, None), served.runner.execute(rows), strict=True
        ):
            expected = served.logprobs(ids, each)[-1]
            assert result.logprob is not None
            assert result.token_id == int(expected.argmax())
            assert abs(result.logprob.logprob - float(expected.max())) < TOLERANCE
        done = [len(first), len(second)]
        # Further tokens are the same whatever the model would say.
        first.append(77)
        second.append(78)


def test_a_prompt_whose_images_are_cached_continues_after_them(served: Served) -> None:
    ids, images = served.prompt("u@vwx", image(50, 50, 3))
    end = -(-images.end // BLOCK_SIZE) * BLOCK_SIZE
    ids += [65] * max(0, end + 2 - len(ids))
    served.runner.execute([a_row(ids, images, 0, end, 0)])
    again = [*ids[:end], 90, 91, 92]
    _, later = served.prompt("u@vwx", image(50, 50, 3))
    [result] = served.runner.execute([a_row(again, later, end, 3, 0)])
    assert result.token_id == int(served.logprobs(again, later)[-1].argmax())


@pytest.mark.parametrize("served", ["llava"], indirect=True)
def test_what_is_no_image(served: Served) -> None:
    cut = image(60, 60)[:500]
    for file in (b"", b"GIF89a", b"<svg/>", cut):
        with pytest.raises(RequestError, match="an image can't be decoded"):
            served.runner.prepare_images([file])


@pytest.mark.parametrize("served", ["llava"], indirect=True)
def test_the_images_of_a_prompt_are_limited_together(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "MAX_PROMPT_PIXELS", 3000)
    served.runner.prepare_images([image(50, 60)])
    with pytest.raises(RequestError, match="more than 3000 pixels together"):
        served.runner.prepare_images([image(50, 50), image(50, 11)])


@pytest.mark.parametrize("served", ["llava"], indirect=True)
def test_a_prompt_with_other_tokens_than_its_images(served: Served) -> None:
    prepared = served.runner.prepare_images([image(40, 40)])
    with pytest.raises(RequestError, match="its images have"):
        served.runner.take_images(prepared.keys, [1, 2, 3])
    with pytest.raises(BackendUnavailable):
        served.runner.take_images(("unknown",), [1, 2, 3])
