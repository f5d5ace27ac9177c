"""States of the layers of a transformers model that keep one for each sequence: convolutions, recurrences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import LinearAttentionCacheLayerMixin

_Key = tuple[int, str, int]
"""A layer, the kind of its state, and the number of the state."""


class LayerStates(DynamicCache):
    """The cache that transformers' code receives: it holds the states of the rows of one forward pass.

    Between two passes, the states of all sequences are in one tensor [slots, ...] for each state of a layer.
    Keys and values pass through to the attention function, which has a cache of its own.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.seen: Tensor | int = 0
        """What transformers' code takes for the number of tokens before the new ones."""
        self._stored: dict[_Key, Tensor] = {}

    @property
    def recurrent(self) -> bool:
        """Whether any layer keeps a state."""
        return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in self.layers)

    @property
    def size(self) -> int:
        """Number of bytes of the states of one row, after a forward pass of one row."""
        return sum(state.nbytes for _, state in self._states())

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Return keys and values unchanged."""
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> Any:  # noqa: ARG002
        """Return what `seen` says: all other positions are passed to the model, and it makes no masks."""
        return self.seen

    def allocate(self, slots: int) -> None:
        """Allocate the states of this number of sequences, in the shapes of the last forward pass."""
        self._stored = {key: state.new_zeros(slots, *state.shape[1:]) for key, state in self._states()}

    def begin(self) -> None:
        """Let the rows of the next pass begin without a state."""
        for layer in self.layers:
            if not isinstance(layer, LinearAttentionCacheLayerMixin):
                continue
            for number in range(layer.number_of_states):
                layer.conv_states[number] = layer.recurrent_states[number] = None
                layer.is_conv_states_initialized[number] = False
                layer.is_recurrent_states_initialized[number] = False
                layer.has_previous_state[number] = False

    def resume(self, slots: Tensor) -> None:
        """Let the rows of the next pass continue from the states in these slots: [rows]."""
        for (index, kind, number), stored in self._stored.items():
            layer: Any = self.layers[index]
            getattr(layer, f"{kind}_states")[number] = stored.index_select(0, slots)
            getattr(layer, f"is_{kind}_states_initialized")[number] = True
            layer.has_previous_state[number] = True

    def save(self, slots: Tensor) -> None:
        """Store the states of the rows of the last pass in these slots: [rows]."""
        for key, state in self._states():
            self._stored[key].index_copy_(0, slots, state)

    def _states(self) -> Iterator[tuple[_Key, Tensor]]:
        for index, layer in enumerate(self.layers):
            if isinstance(layer, LinearAttentionCacheLayerMixin):
                for kind, states in (("conv", layer.conv_states), ("recurrent", layer.recurrent_states)):
                    for number, state in states.items():
                        if state is not None:
                            yield (index, kind, number), state
