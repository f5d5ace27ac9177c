"""A decoder that runs the code of a transformers model over our KV cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from msgspec.structs import replace
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fllm.batching.runner import Row
from fllm.errors import BackendError, ModelError
from fllm_backends.torch import logit_masks
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.images.processor import ModelImages
from fllm_backends.torch.images.store import ProcessedImages
from fllm_backends.torch.lora.adapters import LoraAdapters
from fllm_backends.torch.transformers_lm.image_pass import find_image_pass
from fllm_backends.torch.transformers_lm.output_head import OutputHead
from fllm_backends.torch.transformers_lm.paged_attention import NO_INTERFACE, AttentionKernels, PagedAttention
from fllm_backends.torch.transformers_lm.rope_by_length import select_factors_by_row
from fllm_backends.torch.transformers_lm.states import LayerStates

_COUNTS_TOKENS = ("llama4_text",)
"""Model types that scale queries by positions which they count themselves, from 0 in each pass."""
_SINGLE_TOKENS = ("mamba", "falcon_mamba", "jamba", "zamba")
"""Model types whose scan has no initial state: they continue a state only by one token at a time."""


class TransformersLM:
    """Any decoder class of transformers, in the dtype of its weights.

    Layers with a state keep it for each sequence, by `Row.slot`. Rows of one token that continue their
    states are computed together, any other row of such a model alone.
    """

    def __init__(self, model: PreTrainedModel, kernels: AttentionKernels | None = None) -> None:
        """Find the decoder in the model, and record what its layers store, with a pass of one token.

        ``kernels`` attend if they support the layers; otherwise torch does.
        Replace modules of the model before. Raise `ModelError` if our KV cache can't serve the class.
        """
        config = model.config.get_text_config(decoder=True)
        self._decoder, owner = _find_decoder(model, config)
        self._attention = PagedAttention(self._decoder, config, kernels)
        select_factors_by_row(self._decoder, self._attention)
        self._head = OutputHead(owner, self._decoder)
        self._model = model
        self.adapters: LoraAdapters | None = None
        states = LayerStates(config)
        self._states = states if states.recurrent else None
        self._counter = states if config.model_type in _COUNTS_TOKENS else None
        parameters = inspect.signature(self._decoder.forward).parameters
        self._cache_name = "cache_params" if "cache_params" in parameters else "past_key_values"
        self._single_tokens = config.model_type in _SINGLE_TOKENS
        self._lengths: list[int] = []
        """Number of tokens in the state of each slot."""
        self._images = find_image_pass(model, self._decoder)
        self._offsets: WeakKeyDictionary[ProcessedImages, int] = WeakKeyDictionary()
        """Difference between the positions of tokens after images and their numbers."""
        self.device: torch.device = model.device
        self.vocab_size: int = config.vocab_size
        self._record(states, type(model).__name__)
        chosen = self._attention.choose_kernels()
        self.cache_dtype = chosen.cache_dtype if chosen else model.dtype
        self.block_multiple = chosen.block_multiple if chosen else 1
        self.kv_shapes = self._attention.shapes

    @property
    def image_token(self) -> int | None:
        """Token that stands for a part of an image; ``None`` if the class reads no images."""
        return self._images.token_id if self._images else None

    @property
    def state_size(self) -> int:
        """Number of bytes of the state of one sequence; 0 if no layer keeps one."""
        return self._states.size if self._states else 0

    def allocate_states(self, slots: int) -> None:
        """Allocate the states of this number of sequences."""
        if self._states:
            self._states.allocate(slots)
            self._lengths = [0] * slots

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Return the hidden states of the new tokens, [tokens, hidden]; store their KV in the cache."""
        token_ids = token_ids.to(self.device)
        if self._states is None and not any(row.images for row in batch.rows):
            return self._run(token_ids[None], batch, cache)[0]
        order: list[int] = []
        pieces: list[Tensor] = []
        states = self._states
        passes = _flat_passes if states is None else partial(_state_passes, single_tokens=self._single_tokens)
        for places, rows in passes(batch.rows):
            ids = token_ids[places].view(1 if states is None else len(rows), -1)
            part = AttentionBatch(rows, cache.block_size, self.device)
            slots = self._restore(rows, states) if states else None
            pieces.append(self._run(ids, part, cache).flatten(0, 1))
            if states and slots is not None:
                states.save(slots)
            order += places
        hidden = torch.cat(pieces)
        return torch.empty_like(hidden).index_copy_(0, torch.tensor(order, device=self.device), hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [rows, vocabulary] float32 logits of [rows, hidden] states."""
        return self._head(hidden)

    def greedy_tokens(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """Return the most likely token of each row of [rows, hidden]."""
        tokens: list[int] = logit_masks.apply(allowed, self.logits(hidden)).argmax(-1).tolist()
        return tokens

    def decoder_modules(self) -> dict[str, nn.Module]:
        """Return the modules of the decoder by their names in the whole model."""
        inside = set(self._decoder.modules())
        return {name: module for name, module in self._model.named_modules() if module in inside}

    def _restore(self, rows: Sequence[Row], states: LayerStates) -> Tensor:
        """Let the next pass continue these rows. Return their slots: [rows]."""
        if rows[0].start == 0:
            states.begin()
        slots = torch.tensor([row.slot for row in rows], device=self.device)
        for row in rows:
            if row.start not in (0, self._lengths[row.slot]):
                raise BackendError(f"the state of slot {row.slot} is not that of position {row.start}")
            self._lengths[row.slot] = row.start + row.count
        if rows[0].start:
            states.resume(slots)
        return slots

    def _run(self, ids: Tensor, batch: AttentionBatch | None, cache: KVCache | None) -> Tensor:
        """Return the hidden states of [rows, tokens] ids: [rows, tokens, hidden]."""
        positions = torch.zeros_like(ids) if batch is None else batch.positions.view(ids.shape)
        self._attention.start(batch, cache)
        if self.adapters and batch:
            self.adapters.select(batch.rows)
        if batch is not None and any(row.images for row in batch.rows):
            positions = positions + self._position_offsets(batch).view(positions.shape)
        if self._counter:
            self._counter.seen = positions[0] - torch.arange(ids.shape[1], device=self.device)
        past = self._states or self._counter
        options: dict[str, Any] = {self._cache_name: past, "use_cache": past is not None}
        if batch is not None and self._images and _reads_images(batch.rows[0]):
            return self._images.run(ids, positions, _images(batch.rows[0]).processed, **options)
        output = self._decoder(input_ids=ids, position_ids=positions, **options)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _position_offsets(self, batch: AttentionBatch) -> Tensor:
        """Return what is added to the positions of the new tokens because of images before them: [tokens]."""
        offsets = [self._position_offset(row) for row in batch.rows for _ in range(row.count)]
        return torch.tensor(offsets, device=self.device)

    def _position_offset(self, row: Row) -> int:
        if self._images is None or row.images is None or _reads_images(row):
            return 0
        processed = _images(row).processed
        if processed not in self._offsets:
            prompt = torch.tensor(row.token_ids[: row.images.end], device=self.device)
            self._offsets[processed] = self._images.position_offset(prompt, processed)
        return self._offsets[processed]

    @torch.inference_mode()
    def _record(self, states: LayerStates, name: str) -> None:
        """Run one token, and check that each layer with keys and values uses our attention."""
        states.begin()
        hidden = self._run(torch.ones(1, 1, dtype=torch.long, device=self.device), None, None)
        attending = {index for index, layer in enumerate(states.layers) if isinstance(layer, DynamicLayer)}
        if not attending <= self._attention.layers or not (attending or states.recurrent):
            raise ModelError(f"{name} can't be served: {NO_INTERFACE}")
        if attending and "position_ids" not in inspect.signature(self._decoder.forward).parameters:
            raise ModelError(f"{name} can't be served: it counts the positions of tokens itself")
        self.logits(hidden[0])


def _reads_images(row: Row) -> bool:
    """Return whether the row begins with images that are not in the cache."""
    return row.images is not None and row.start < row.images.end


def _images(row: Row) -> ModelImages:
    assert isinstance(row.images, ModelImages), "the runner has made them"
    return row.images


def _flat_passes(rows: Sequence[Row]) -> Iterator[tuple[list[int], list[Row]]]:
    """Divide a batch into forward passes of rows without states: those that read images alone, all others.

    Yield the positions in the batch of the tokens of each pass, and its rows.
    """
    others: list[Row] = []
    other_places: list[int] = []
    at = 0
    for row in rows:
        places = range(at, at + row.count)
        at += row.count
        if _reads_images(row):
            yield [*places], [row]
        else:
            others.append(row)
            other_places += places
    if others:
        yield other_places, others


def _state_passes(rows: Sequence[Row], *, single_tokens: bool) -> Iterator[tuple[list[int], list[Row]]]:
    """Divide a batch into forward passes of rows with states.

    Yield the positions in the batch of the tokens of each pass, and its rows, which have the same number of
    tokens. ``single_tokens``: a row that continues its state has one token in each pass.
    """
    decodes: list[tuple[int, Row]] = []
    at = 0
    for row in rows:
        places = list(range(at, at + row.count))
        at += row.count
        if row.start and row.count == 1:
            decodes.append((places[0], row))
        elif row.start and single_tokens:
            for number, place in enumerate(places):
                yield [place], [replace(row, start=row.start + number, count=1)]
        else:
            yield places, [row]
    if decodes:
        yield [place for place, _ in decodes], [row for _, row in decodes]


def _find_decoder(model: PreTrainedModel, config: Any) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return the decoder of a model, without an output head, and the module that has the output head."""
    models = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    decoders = [each for each in models if type(each.config) is type(config) and not _has_head(each)]
    decoder = decoders[-1] if decoders else model  # the innermost
    owners = [each for each in models if _has_head(each) and decoder in set(each.modules())]
    if not decoders or not owners:
        raise ModelError(
            f"{type(model).__name__} can't be served: it has no decoder apart from an output head"
        )
    return decoder, owners[-1]


def _has_head(model: PreTrainedModel) -> bool:
    return model.get_output_embeddings() is not None
