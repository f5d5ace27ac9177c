"""What a grammar plugin implements: from a `Constraint` to the tokens that may come next.

::

    Vocabulary ─ factory ─▶ GrammarCompiler ─ compile(Constraint) ─▶ CompiledGrammar ─ matcher() ─▶ Matcher
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from fllm.constraints import Constraint
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard


class Vocabulary(Struct, frozen=True):
    """The tokens of a model, as a grammar must know them."""

    tokens: list[bytes]
    """What each adds to a text, one for each logit; ``b""`` for one that no text holds: a special token that
    is not visible, an end of sequence, padding."""
    eos_token_ids: tuple[int, ...] = ()

    @property
    def bitmask_size(self) -> int:
        """The 32-bit words of a mask with one bit for each token."""
        return -(-len(self.tokens) // 32)


class GrammarContext(Struct, frozen=True, kw_only=True):
    """What a compiler is made from."""

    vocabulary: Callable[[], Vocabulary]
    """Reads it when it is first needed; the same one every time, from any thread."""


class GrammarMatcher(Protocol):
    """One text, as far as it is written. Called by one thread at a time."""

    def fill_bitmask(self, mask: memoryview) -> None:
        """Say which tokens may come next: token ``i`` is bit ``i % 32`` of word ``i // 32``.

        ``mask`` holds `Vocabulary.bitmask_size` native int32 and any old content. Tokens without text stay 0;
        the bits of ends of sequence are of no account. Must release the GIL if it may take long.
        """
        ...

    def accept_token(self, token_id: int) -> bool:
        """The text goes on with this token; False if the grammar does not allow it."""
        ...

    @property
    def is_accepting(self) -> bool:
        """The text so far is one of the grammar: it may end here."""
        ...


class CompiledGrammar(Protocol):
    """A constraint made ready for any number of texts."""

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        ...

    def matcher(self) -> GrammarMatcher:
        """For a new text."""
        ...


class GrammarCompiler(Protocol):
    """Turns constraints into grammars. Nothing heavy happens before the first `compile`."""

    def compile(self, constraint: Constraint) -> CompiledGrammar:
        """May be called from several threads, and blocks.

        Raises `RequestError` within about a second for what can't be done, naming the unsupported keyword.
        """
        ...

    def close(self) -> None:
        """Nothing more will be compiled; called once."""
        ...


GrammarFactory = Callable[[GrammarContext], GrammarCompiler]


def read_vocabulary(card: ModelCard, visible: Iterable[str] = ()) -> Vocabulary:
    """The model's tokens; the special ones of ``visible`` reach answers as text, others never stand in it."""
    tokenizer = Tokenizer.load(Path(card.tokenizer))
    hidden = tokenizer.special_ids - {tokenizer.token_to_id(token) for token in visible}
    hidden |= set(card.eos_token_ids)
    size = card.runtime.get("vocab_size", tokenizer.vocab_size)
    tokens = [b"" if token in hidden else tokenizer.token_bytes(token) for token in range(size)]
    return Vocabulary(tokens, card.eos_token_ids)
