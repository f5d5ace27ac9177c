"""Attention of a transformers model over our paged KV cache, through transformers' attention interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fllm.errors import ModelError
from fllm_backends.torch.attention import AttentionBatch, KVCache, KVShape, Pattern

ATTENTION = "fllm"
"""Name of our attention for transformers. No mask function has this name, so our attention gets no masks."""
MASKED_ATTENTION = "fllm_masked"
"""Name of the same attention with masks: some classes let the tokens of an image attend to later ones."""

_KNOWN = ("scaling", "sliding_window", "softcap", "s_aux")
"""Arguments of the interface that `Pattern` stands for."""
NO_INTERFACE = "its attention does not go through transformers' attention interface"
"""Why some classes can't be served."""


def register_attention() -> None:
    """Make our attention known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, _attend)
    AttentionInterface.register(MASKED_ATTENTION, _attend)
    AttentionMaskInterface.register(MASKED_ATTENTION, sdpa_mask)


class AttentionKernels(Protocol):
    """Attends over a KV cache of its own type and layout, such as `KernelAttention` or `TritonAttention`."""

    cache_dtype: torch.dtype
    block_multiple: int
    """Blocks have a multiple of this number of tokens."""

    def support(self, shapes: Sequence[KVShape], patterns: Sequence[Pattern]) -> bool:
        """Return whether it can attend in all layers, and is faster than torch in some."""
        ...

    def padded(self, shapes: Sequence[KVShape]) -> tuple[KVShape, ...]:
        """Return what the layers of its cache store of a token."""
        ...

    def start(self) -> None:
        """Begin a pass over another batch."""
        ...

    def attend(
        self,
        layer: int,
        pattern: Pattern,
        query: Tensor,
        new: tuple[Tensor, Tensor] | None,
        cache: tuple[Tensor, Tensor],
        batch: AttentionBatch,
    ) -> Tensor:
        """Store ``new`` keys and values if there are any, and attend to all of the layer's ``cache``."""
        ...

    def write(self, cache: tuple[Tensor, Tensor], slots: Tensor, new: tuple[Tensor, Tensor]) -> None:
        """Store [tokens, kv_heads, dim] keys and values at [tokens] slots of a layer's cache."""
        ...

    def read(self, cache: tuple[Tensor, Tensor], slots: Tensor, shape: KVShape) -> list[Tensor]:
        """Return the keys and values at [tokens] slots of a layer's cache: [tokens, kv_heads, dim]."""
        ...


class PagedAttention:
    """The attention of all layers of one model, over the batch that is computed at the moment."""

    def __init__(self, decoder: nn.Module, config: Any, kernels: AttentionKernels | None) -> None:
        """Register with the attention modules of a decoder. ``config`` is that of its text part.

        ``kernels`` attend if they support the layers.
        """
        self._kernels = kernels
        self._config = config
        self._sources = _shared_layers(config)
        self._shapes: dict[int, KVShape] = {}
        self._cached: dict[int, int] = {}
        """Layer of the KV cache of each layer of the model that has one."""
        self._patterns: dict[int, Pattern] = {}
        self._batch: AttentionBatch | None = None
        self._cache: KVCache | None = None
        for module in decoder.modules():
            if hasattr(module, "layer_idx"):
                module.paged_attention = self  # type: ignore[assignment]

    def choose_kernels(self) -> AttentionKernels | None:
        """Return the kernels if they attend, once a forward pass without a batch has recorded the layers."""
        shapes = [self._shapes[self._sources.get(layer, layer)] for layer in self._patterns]
        if self._kernels and not self._kernels.support(shapes, [*self._patterns.values()]):
            self._kernels = None
        return self._kernels

    @property
    def shapes(self) -> tuple[KVShape, ...]:
        """What each layer of the KV cache stores of a token."""
        shapes = tuple(self._shapes.values())
        return self._kernels.padded(shapes) if self._kernels else shapes

    @property
    def layers(self) -> set[int]:
        """Layers of the model that attended in the pass without a batch."""
        return set(self._patterns)

    @property
    def sequence_lengths(self) -> Tensor | None:
        """Number of tokens of the sequence of each new token: [tokens]; ``None`` without a batch."""
        return None if self._batch is None else self._batch.sequence_lengths

    def start(self, batch: AttentionBatch | None, cache: KVCache | None) -> None:
        """Set the batch that the layers attend in. ``None``: record their shapes, and return zeros."""
        self._batch, self._cache = batch, cache
        if self._kernels:
            self._kernels.start()

    def record(self, module: Any, key: Tensor, value: Tensor, options: dict[str, Any]) -> None:
        """Record what a layer stores of a token and how it attends. Raise `ModelError` if we can't do that.

        ``options`` are all arguments of transformers' attention interface that have a name.
        """
        name = type(module).__name__
        if getattr(module, "is_causal", True) is False:
            raise ModelError(f"{name} attends to later tokens; it generates no text")
        if own := [key for key, value in options.items() if key not in _KNOWN and _is_scores(value)]:
            raise ModelError(f"{name} can't be served: it makes its own {own[0]} for attention")
        layer: int = module.layer_idx
        if layer in self._patterns:
            raise ModelError(f"{name} can't be served: its attention runs several times in a layer")
        self._patterns[layer] = self._pattern(layer, options)
        source = self._sources.get(layer, layer)
        if source == layer:
            self._cached[layer] = len(self._shapes)
            self._shapes[layer] = KVShape(key.shape[1], key.shape[2], value.shape[2])

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Store [tokens, kv_heads, dim] keys and values; return [tokens, heads, value_dim].

        With a ``mask`` [1, 1, tokens, tokens], the batch is the beginning of one row.
        """
        batch, cache = self._batch, self._cache
        if batch is None or cache is None:
            return query.new_zeros(*query.shape[:2], value.shape[2])
        layer: int = module.layer_idx
        source = self._sources.get(layer, layer)
        stored, pattern = cache.layer(self._cached[source]), self._patterns[layer]
        new = (key, value) if source == layer else None
        if self._kernels and mask is None:
            attended = self._kernels.attend(layer, pattern, query, new, stored, batch)
            return attended[..., : self._shapes[source].value_dim].to(query.dtype)
        if new:
            self._write(cache, source, batch.slots, new)
        if mask is None:
            return batch.attend(query, *stored, pattern)
        share = query.shape[1] // stored[0].shape[2]
        parts = [part.repeat_interleave(share, 1) for part in self._read(stored, source, batch.slots)]
        query, key, value = (part.transpose(0, 1)[None] for part in (query, *parts))
        return pattern.attend(query, key, value, mask)[0].transpose(0, 1)

    def _write(self, cache: KVCache, source: int, slots: Tensor, new: tuple[Tensor, Tensor]) -> None:
        index = self._cached[source]
        if self._kernels:
            self._kernels.write(cache.layer(index), slots, new)
        else:
            cache.write(index, slots, *new)

    def _read(self, stored: tuple[Tensor, Tensor], source: int, slots: Tensor) -> list[Tensor]:
        if self._kernels:
            return self._kernels.read(stored, slots, self._shapes[source])
        return [part.flatten(0, 1)[slots] for part in stored]

    @property
    def recording(self) -> bool:
        """Whether there is no batch."""
        return self._batch is None

    def _pattern(self, layer: int, options: dict[str, Any]) -> Pattern:
        kinds = getattr(self._config, "layer_types", None)
        kind = kinds[layer] if kinds else None
        window = options["sliding_window"]
        if kind == "sliding_attention" and window is None:
            window = self._config.sliding_window
        return Pattern(
            window=window,
            chunk=self._config.attention_chunk_size if kind == "chunked_attention" else None,
            scale=options["scaling"],
            softcap=options["softcap"],
            sinks=options["s_aux"],
        )


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' attention interface requires.

    Queries, keys and values are [batch, heads, tokens, dim]; ``s_aux`` are the sinks of the heads. Return
    [batch, tokens, heads, dim]. The batch of transformers and its tokens are tokens of one flat batch of
    ours, in this order.
    """
    paged: PagedAttention = module.paged_attention
    flat = [part.transpose(1, 2).flatten(0, 1) for part in (query, key, value)]
    if paged.recording:
        options: dict[str, Any] = {
            "scaling": scaling,
            "sliding_window": sliding_window,
            "softcap": softcap,
            "s_aux": s_aux,
        }
        options |= kwargs | {"attention_mask": attention_mask}
        paged.record(module, flat[1], flat[2], options)
    attended = paged.attend(module, flat[0], flat[1], flat[2], attention_mask)
    return attended.view(query.shape[0], query.shape[2], *attended.shape[1:]), None


def _is_scores(value: Any) -> bool:
    """Return whether an argument looks like a mask or a bias of the attention scores."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.dtype == torch.bool)


def _shared_layers(config: Any) -> dict[int, int]:
    """Return the layers that use the keys and values of an earlier layer, and which, as in Gemma 3n."""
    modes = getattr(config, "kv_sharing_modes", None) or ()
    latest: dict[str, int] = {}
    sources = {}
    for layer, mode in enumerate(modes):
        kind = config.layer_types[layer]
        if mode == "store":
            latest[kind] = layer
        elif mode == "reuse":
            sources[layer] = latest[kind]
    return sources
