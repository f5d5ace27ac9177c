"""The outputs of earlier requests, kept apart by who may see them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from fllm_backends.drafters.suffix_index import END, SuffixIndex

MAX_OUTPUT_TOKENS = 2048
"""Only the last tokens of a longer output are kept, since the engine waits until they are indexed."""
MAX_TOKENS = 1 << 17
"""Number of tokens of all outputs. They take 34 MB."""
GENERATION_TOKENS = MAX_TOKENS // 4
"""Number of tokens of one generation of outputs."""


class ScopedOutputs:
    """The outputs of one scope, in two generations: when the new one is full, the old one is dropped."""

    def __init__(self) -> None:
        self.generations = [SuffixIndex()]
        self._outputs = 0
        """Number of outputs in the new generation."""

    @property
    def size(self) -> int:
        """Number of tokens."""
        return sum(len(each.tokens) for each in self.generations)

    def add(self, output: Sequence[int], max_outputs: int) -> None:
        """Add an output to the new generation."""
        full = len(self.generations[0].tokens) + len(output) >= GENERATION_TOKENS
        if full or self._outputs >= max(max_outputs // 2, 1):
            self.generations = [SuffixIndex(), self.generations[0]]
            self._outputs = 0
        self.generations[0].append([*output, END])
        self._outputs += 1


class OutputCache:
    """The outputs of all scopes. What was used longest ago is dropped first."""

    def __init__(self, max_outputs: int) -> None:
        self._max_outputs = max_outputs
        self._scopes: OrderedDict[bytes, ScopedOutputs] = OrderedDict()
        self.size = 0
        """Number of tokens, at most `MAX_TOKENS`."""

    def of(self, scope: bytes) -> Sequence[SuffixIndex]:
        """Return the indexes of the outputs of a scope."""
        outputs = self._scopes.get(scope)
        if outputs is None:
            return ()
        self._scopes.move_to_end(scope)
        return outputs.generations

    def add(self, scope: bytes, output: Sequence[int]) -> None:
        """Keep an output for later requests of a scope."""
        if not self._max_outputs or not output:
            return
        outputs = self._scopes.setdefault(scope, ScopedOutputs())
        self._scopes.move_to_end(scope)
        self.size -= outputs.size
        outputs.add(output[-MAX_OUTPUT_TOKENS:], self._max_outputs)
        self.size += outputs.size
        while self.size > MAX_TOKENS:
            _, dropped = self._scopes.popitem(last=False)
            self.size -= dropped.size
