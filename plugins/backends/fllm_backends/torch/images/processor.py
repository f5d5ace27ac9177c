"""The processor of a vision-language model of transformers."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fllm.batching import PromptImages
from fllm.errors import BackendUnavailable, RequestError
from fllm.sandbox import Worker
from fllm.values import ImageSupport, PreparedImages
from fllm_backends.checkpoints.image_processor_files import has_image_processor, processor_classes
from fllm_backends.torch.images import decoding
from fllm_backends.torch.images.store import ImageStore, ProcessedImages

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("fllm.backends.torch")


MAX_PROMPT_PIXELS = 160_000_000
"""All images of one prompt together: their preparation takes about 8 bytes of memory for each pixel."""


class ModelImages(PromptImages, frozen=True):
    """The images of a prompt with what the model takes."""

    processed: ProcessedImages


class ImageProcessor:
    """Decodes the images of prompts and prepares them for the model. Any thread may call it."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._settings = processor._merge_kwargs(
            tokenizer_init_kwargs=processor.tokenizer.init_kwargs, return_tensors="pt"
        )["images_kwargs"]
        self._worker: Worker[None, bytes] = Worker(decoding.make_decoder, lambda: None, decoding.LIMITS)
        self._store = ImageStore()

    @property
    def support(self) -> ImageSupport:
        """How prompts contain images."""
        return ImageSupport(self._processor.image_token)

    def prepare(self, files: Sequence[bytes]) -> PreparedImages:
        """Decode and prepare the images of one prompt. Raise `RequestError` if one can't be."""
        keys = tuple(hashlib.blake2b(file, digest_size=16).hexdigest() for file in files)
        images = self._store.get(keys)
        if images is None:
            images = self._process(self._decode_all(files))
            self._store.put(keys, images)
        return PreparedImages(keys, images.texts)

    def take(self, keys: Sequence[str], token_ids: Sequence[int], token_id: int) -> ModelImages:
        """Return the prepared images of a prompt, in which ``token_id`` stands for their parts.

        Raise `BackendUnavailable` if they are not there any more, `RequestError` if the prompt does not have
        as many of these tokens.
        """
        images = self._store.get(tuple(keys))
        if images is None:
            raise BackendUnavailable("the images of this request are not in memory any more: send it again")
        token = self._processor.tokenizer.convert_ids_to_tokens(token_id)
        if token_ids.count(token_id) != (required := sum(text.count(token) for text in images.texts)):
            raise RequestError(
                f"the prompt has {token_ids.count(token_id)} tokens {token}; its images have {required}",
                param="messages",
            )
        last = len(token_ids) - 1 - token_ids[::-1].index(token_id)
        return ModelImages(last + 1, images)

    def close(self) -> None:
        """End the worker process."""
        self._worker.stop()

    def _decode_all(self, files: Sequence[bytes]) -> list[Image]:
        images, pixels = [], 0
        for file in files:
            images.append(image := self._decode(file))
            pixels += image.width * image.height
            if pixels > MAX_PROMPT_PIXELS:
                raise RequestError(
                    f"the images have more than {MAX_PROMPT_PIXELS} pixels together", param="messages"
                )
        return images

    def _decode(self, file: bytes) -> Image:
        from PIL import Image

        decoded = self._worker.run(file)
        width, height = (int.from_bytes(decoded[at : at + 4], "big") for at in (0, 4))
        return Image.frombytes("RGB", (width, height), decoded[decoding.HEADER_BYTES :])

    def _process(self, images: list[Image]) -> ProcessedImages:
        try:
            inputs, texts = self._processor._process_images([images], **self._settings)
        except ValueError as error:  # such as an aspect ratio that the model can't take
            raise RequestError(f"the model can't take an image: {error}", param="messages") from error
        used = {key: value for key, value in inputs.items() if key not in self._processor.unused_input_names}
        return ProcessedImages(tuple(texts), used)


def load_image_processor(directory: Path, name: str) -> ImageProcessor | None:
    """Load the processor of this class of transformers. Return ``None``, and log why, if that fails."""
    try:
        return ImageProcessor(_load(directory, name))
    except (ImportError, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("images are not accepted: the model's image processor can't be loaded: %s", reason)
        return None


def _load(directory: Path, name: str) -> Any:
    from transformers.models.auto import processing_auto

    cls: Any = processing_auto.processor_class_from_name(name)
    if cls is None or getattr(
        cls, "is_dummy", False
    ):  # it needs a library for videos, which images do not need
        names: Any = processing_auto.PROCESSOR_MAPPING_NAMES  # type: ignore[attr-defined]
        module = next((key for key, value in names.items() if value and name in value), None)
        if module is None:
            raise ValueError(f"transformers has no processor {name}")
        cls = getattr(import_module(f"transformers.models.{module}.processing_{module}"), name)
    images_only: Any = type(name, (_ImagesOnly, cls), {})
    return images_only.from_pretrained(directory, local_files_only=True)


class _ImagesOnly:
    """A processor without its parts for videos and audio, which need libraries of their own."""

    @classmethod
    def _get_arguments_from_pretrained(cls: Any, directory: Path, _: Any = None, **options: Any) -> list[Any]:
        from transformers import AutoImageProcessor, AutoTokenizer

        classes: dict[str, Any] = {"image_processor": AutoImageProcessor, "tokenizer": AutoTokenizer}
        return [
            classes[part].from_pretrained(directory, **options) if part in classes else None
            for part in cls.get_attributes()
        ]

    def check_argument_for_proper_class(self, name: str, part: Any) -> Any:
        """Accept parts that are left out."""
        return None if part is None else super().check_argument_for_proper_class(name, part)  # type: ignore[misc]


def find_processor(directory: Path, model_type: str) -> str | None:
    """Return the name of a model's processor class; ``None`` if the directory has none for images."""
    from transformers.models.auto import processing_auto

    if not has_image_processor(directory):
        return None
    names: Any = processing_auto.PROCESSOR_MAPPING_NAMES  # type: ignore[attr-defined]
    return next(iter([*processor_classes(directory), *filter(None, [names.get(model_type)])]), None)
