"""Count the reasoning tokens of a sequence, and force the end of the reasoning after a maximum."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from fllm.tokenizer import Tokenizer
from fllm.values import ReasoningLimit


class ReasoningBudget:
    """The reasoning of one sequence, followed by its text. A marker may consist of any tokens."""

    def __init__(self, limit: ReasoningLimit, tokenizer: Tokenizer) -> None:
        self._limit = limit
        self._tokenizer = tokenizer
        self._end = tokenizer.encode(limit.end, add_special_tokens=False)
        self._left = limit.max_tokens
        self._inside = limit.inside
        self._begins = not limit.inside
        """Whether the output so far may be the beginning of an opening marker."""
        self._over = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        """The end of the text, in which a marker may have begun."""
        self._longest = max(map(len, (*limit.opening, *limit.closing)), default=1)
        self._forced: list[int] = []
        self._arm()

    @property
    def forced_token(self) -> int | None:
        """The token that must come next, or ``None``."""
        return self._forced[0] if self._forced else None

    def accept(self, token_id: int) -> None:
        """Append a token of the output."""
        if self._over:
            return
        text = self._decoder.decode(self._tokenizer.token_bytes(token_id))
        if self._forced and token_id == self._forced[0]:
            self._forced = self._forced[1:]
            if not self._forced:
                self._close()
            return
        # A grammar may not allow the end here. It is forced again after this token.
        self._forced = []
        self._text += text
        was_inside = self._inside
        while self._next_section():
            pass
        self._left -= was_inside and self._inside
        self._arm()

    def _arm(self) -> None:
        """Begin to force the end if nothing is left. It never divides a character."""
        if self._inside and self._left <= 0 and not self._decoder.getstate()[0]:
            self._forced = self._end

    def _close(self) -> None:
        self._inside, self._text = False, ""
        self._over = not self._limit.reopens

    def _next_section(self) -> bool:
        """Remove the text up to the next marker. Return whether there is one."""
        if self._begins and not self._inside:
            return self._begin()
        marker = _first(self._text, self._limit.closing if self._inside else self._limit.opening)
        if marker is None:
            self._text = self._text[-self._longest :]
            return False
        rest = self._text[marker:]
        if self._inside:
            self._close()
        else:
            self._inside = True
        self._text = rest
        return not self._over

    def _begin(self) -> bool:
        """Find an opening marker at the beginning of the output. Return whether there is one."""
        self._text = self._text.lstrip()
        if any(opening.startswith(self._text) and opening != self._text for opening in self._limit.opening):
            return False
        self._begins = False
        self._over = not (self._text.startswith(tuple(self._limit.opening)) or self._limit.reopens)
        return not self._over


def _first(text: str, markers: Sequence[str]) -> int | None:
    """Return the end of the first marker in a text, or ``None``."""
    found = [(place, place + len(marker)) for marker in markers if (place := text.find(marker)) >= 0]
    return min(found)[1] if found else None
