"""The interfaces of a grammar plugin: from a `Constraint` to the tokens that may come next.

::

    GrammarContext ─ factory ─▶ GrammarCompiler ─ compile(Constraint) ─▶ CompiledGrammar
    CompiledGrammar ─ matcher() ─▶ GrammarMatcher, one for each output
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from fllm.constraints import Constraint
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard


class Vocabulary(Struct, frozen=True):
    """The tokens of a model, as a grammar needs them."""

    tokens: list[bytes]
    """Bytes that each token adds to a text, one entry per logit. ``b""`` for a token that no text contains: a
    special token that is not visible, an end of sequence, padding."""
    eos_token_ids: tuple[int, ...] = ()

    @property
    def bitmask_size(self) -> int:
        """Number of 32-bit words in a mask with one bit for each token."""
        return -(-len(self.tokens) // 32)


class GrammarContext(Struct, frozen=True, kw_only=True):
    """The arguments of a grammar factory."""

    vocabulary: Callable[[], Vocabulary]
    """Function that returns the vocabulary. It is read at the first call; later calls return the same object.
    Any thread may call it."""
    encode: Callable[[str], list[int]] | None = None
    """Function that returns the token ids that the model's tokenizer gives a text, without a beginning or end
    of sequence, if the tokenizer is known. Any thread may call it."""
    options: Any = None
    """Options of the plugin: a value of its ``FLLM_OPTIONS``, or ``None`` if it declares none."""


class GrammarMatcher(Protocol):
    """The state of one output under a grammar. Called by one thread at a time.

    Raise `RequestError` if the text exceeds a limit that the client can avoid with a simpler grammar.
    """

    def fill_bitmask(self, mask: memoryview) -> None:
        """Set the bits of the tokens that may come next: token ``i`` is bit ``i % 32`` of word ``i // 32``.

        ``mask`` is a buffer of `Vocabulary.bitmask_size` native int32 values with undefined content:
        overwrite all of it. Leave the bits of tokens without text at 0. The bits of end-of-sequence tokens
        are ignored. Release the GIL if this may be slow.
        """
        ...

    def accept_token(self, token_id: int) -> bool:
        """Advance by a token. Return False if the grammar does not allow it."""
        ...

    @property
    def is_accepting(self) -> bool:
        """Whether the output may end here: the text so far matches the whole grammar."""
        ...


@runtime_checkable
class ForcesTokens(Protocol):
    """What a `GrammarMatcher` may do in addition: name the tokens that have no alternative.

    They are part of the output without being sampled, and the device computes them together.
    """

    def forced_tokens(self) -> Sequence[int]:
        """Return the tokens that must come next, if any. `accept_token` is called with each of them.

        Return those that the model's tokenizer gives the forced text (see `GrammarContext.encode`), because a
        model continues other divisions of the same text badly. Leave out the end of the text, if a longer
        token could begin there.
        """
        ...


class CompiledGrammar(Protocol):
    """A compiled constraint, for any number of outputs."""

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        ...

    def matcher(self) -> GrammarMatcher:
        """Return a matcher for a new output. This must be cheap."""
        ...


class GrammarCompiler(Protocol):
    """Compiles constraints. Do nothing slow before the first `compile`."""

    def compile(self, constraint: Constraint) -> CompiledGrammar:
        """Return the compiled grammar. This may block, and several threads may call it.

        Raise `RequestError` within about a second for what can't be compiled, naming the unsupported keyword.
        """
        ...

    def close(self) -> None:
        """Free all resources. Called once, after the last `compile`."""
        ...


GrammarFactory = Callable[[GrammarContext], GrammarCompiler]


def read_vocabulary(card: ModelCard, tokenizer: Tokenizer, visible: Iterable[str] = ()) -> Vocabulary:
    """Return the model's vocabulary, in which only the special tokens of ``visible`` have text."""
    hidden = tokenizer.special_ids - {tokenizer.token_to_id(token) for token in visible}
    hidden |= set(card.eos_token_ids)
    size = card.runtime.get("vocab_size", tokenizer.vocab_size)
    tokens = [b"" if token in hidden else tokenizer.token_bytes(token) for token in range(size)]
    return Vocabulary(tokens, card.eos_token_ids)
