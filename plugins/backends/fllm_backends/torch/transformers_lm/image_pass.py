"""The forward pass over the beginning of a prompt with images, by the code of the vision-language class."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from fllm_backends.torch.images.store import ProcessedImages
from fllm_backends.torch.transformers_lm.paged_attention import ATTENTION, MASKED_ATTENTION

_TOKEN_FIELDS = ("image_token_id", "image_token_index")
"""Fields of a configuration that hold the token which stands for a part of an image."""


class ImagePass:
    """Runs a vision-language model over the first tokens of a prompt, images included."""

    def __init__(self, model: PreTrainedModel, module: PreTrainedModel, decoder: nn.Module) -> None:
        """Use ``module``, the innermost part of ``model`` that has both its images and its decoder."""
        self._module: Any = module
        self._parameters = inspect.signature(module.forward).parameters
        self._hidden: Tensor | None = None
        decoder.register_forward_hook(self._keep_hidden)
        parts = (part for part in model.modules() if isinstance(part, PreTrainedModel))
        configs = {id(part.config): part.config for part in parts}
        self._configs = [each for each in configs.values() if each._attn_implementation == ATTENTION]
        self.token_id: int = next(
            value for name in _TOKEN_FIELDS if (value := getattr(model.config, name, None)) is not None
        )
        self._has_own_positions = hasattr(module, "get_rope_index")
        """Whether an image has positions in several dimensions, as in Qwen-VL."""

    def run(self, ids: Tensor, positions: Tensor, images: ProcessedImages, **options: Any) -> Tensor:
        """Return the hidden states of [1, tokens] ids from position 0: [1, tokens, hidden].

        ``options`` are further arguments of the class.
        """
        values = self._inputs(images, ids) | options
        if not self._has_own_positions:
            values["position_ids"] = positions
        if "logits_to_keep" in self._parameters:
            values["logits_to_keep"] = 1
        with self._masks():
            self._module(input_ids=ids, **values)
        assert self._hidden is not None, "the module runs the decoder"
        hidden, self._hidden = self._hidden, None
        return hidden

    def position_offset(self, token_ids: Tensor, images: ProcessedImages) -> int:
        """Return the difference between the positions of the tokens after the images and their numbers.

        ``token_ids`` are [tokens] of a prompt up to its last image.
        """
        if not self._has_own_positions:
            return 0
        values = self._inputs(images, token_ids[None])
        names = inspect.signature(self._module.get_rope_index).parameters
        known = {name: value for name, value in values.items() if name in names}
        _, offsets = self._module.get_rope_index(token_ids[None], **known)
        return int(offsets.flatten()[0])

    def _inputs(self, images: ProcessedImages, ids: Tensor) -> dict[str, Any]:
        values = {name: self._converted(value, ids) for name, value in images.inputs.items()}
        kinds = (ids == self.token_id).long()
        values |= {"mm_token_type_ids": kinds, "token_type_ids": kinds}
        return {name: value for name, value in values.items() if name in self._parameters}

    def _converted(self, value: Any, ids: Tensor) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(ids.device, self._module.dtype if value.is_floating_point() else None)

    def _keep_hidden(self, module: nn.Module, arguments: Any, output: Any) -> None:  # noqa: ARG002
        self._hidden = output.last_hidden_state

    @contextmanager
    def _masks(self) -> Generator[None]:
        """Let the class make masks for our attention."""
        for config in self._configs:
            config._attn_implementation_internal = MASKED_ATTENTION
        try:
            yield
        finally:
            for config in self._configs:
                config._attn_implementation_internal = ATTENTION


def find_image_pass(model: PreTrainedModel, decoder: nn.Module) -> ImagePass | None:
    """Return the pass for images of a model, or ``None`` if its class reads none."""
    parts = [
        part
        for part in model.modules()
        if isinstance(part, PreTrainedModel)
        and hasattr(part, "get_image_features")
        and part is not decoder
        and decoder in set(part.modules())
    ]
    if not parts or all(getattr(model.config, name, None) is None for name in _TOKEN_FIELDS):
        return None
    return ImagePass(model, parts[-1], decoder)
