"""Labels of options: texts that are one token each at the first position of the reply."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import product
from string import ascii_uppercase, digits

from msgspec import Struct

from fllm import RequestError
from fllm.tokenizer import Tokenizer

_TAIL_TOKENS = 32
"""Number of tokens at the end of a prompt that may change how a label is tokenized."""


class Label(Struct, frozen=True):
    """A label, and the tokens that a reply may begin with it."""

    text: str
    token_ids: tuple[int, ...]
    """With and without a space before it, in upper and in lower case if it is a word."""


class LabelTokens:
    """Finds labels that are one token at the end of a model's prompts."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        """Create it with the token ids of any prompt of the model, whose end all prompts have."""
        start = max((at + 1 for at, token in enumerate(prompt) if token in tokenizer.special_ids), default=0)
        self._tokenizer = tokenizer
        self._tail = tokenizer.decode(prompt[start:][-_TAIL_TOKENS:], skip_special_tokens=False)
        self._tail_ids = tokenizer.encode(self._tail, add_special_tokens=False)
        self._token = cache(self._find_token)

    def yes_or_no(self) -> list[Label]:
        """Return the labels of a statement that is true, and of one that is false."""
        return self._all(("Yes", "No")) or self.letters(2)

    def levels(self, count: int) -> list[Label]:
        """Return the labels of a scale: its numbers from 0, or letters if there are too many."""
        return self._all(digits[:count] if count <= len(digits) else ()) or self.letters(count)

    def letters(self, count: int) -> list[Label]:
        """Return letters, and pairs of letters if they are not enough.

        Raise `RequestError` if the tokenizer of the model has not enough of them.
        """
        found: list[Label] = []
        for text in _letter_labels():
            if token_ids := self._spellings([text]):
                found.append(Label(text, token_ids))
            if len(found) == count:
                return found
        raise RequestError(
            f"a question can have {len(found)} options with this model, and has {count}", param="questions"
        )

    def _all(self, texts: Iterable[str]) -> list[Label]:
        """Return the labels; none if one of them has no token."""
        labels = [Label(text, self._spellings(dict.fromkeys((text, text.lower())))) for text in texts]
        return labels if all(label.token_ids for label in labels) else []

    def _spellings(self, texts: Iterable[str]) -> tuple[int, ...]:
        found = [self._token(space + text) for text in texts for space in ("", " ")]
        return tuple(dict.fromkeys(token for token in found if token is not None))

    def _find_token(self, text: str) -> int | None:
        """Return the one token that the text adds to a prompt, or ``None``."""
        ids = self._tokenizer.encode(self._tail + text, add_special_tokens=False)
        return ids[-1] if ids[:-1] == self._tail_ids else None


def _letter_labels() -> Iterator[str]:
    yield from ascii_uppercase
    for pair in product(ascii_uppercase, repeat=2):
        yield "".join(pair)
