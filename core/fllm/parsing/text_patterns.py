"""Patterns of texts with white space between them, which tell early whether more text could still match."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fllm.parsing.body_scanner import match_end

WORDS = re.compile(r'[^<>"\n]*+')
"""The characters that a name or a key in a tag may have."""
WORD = re.compile(r'[^\s<>"{}\[\]]*+')
"""The characters of a name, as a part of a pattern."""

TextPattern = Sequence[Sequence[str] | re.Pattern[str]]
"""Texts that follow one another, with white space between them: of each, one of several, or a word."""

_SPACE = re.compile(r"\s*+")


def match_pattern(pattern: TextPattern, text: str, position: int = 0) -> tuple[str | None, int]:
    """Return the word in a match of the pattern at ``position``, and the end of the match.

    The word is empty if the pattern has none. Return ``None`` if the pattern does not match; then the
    position is the end of ``text`` if more text may match.
    """
    word = ""
    for texts in pattern:
        position = match_end(_SPACE, text, position)
        if not isinstance(texts, Sequence):
            end = match_end(texts, text, position)
            word, position = text[position:end].strip(), end
            if not word and end < len(text):
                return None, position
            continue
        found = next((each for each in texts if text.startswith(each, position)), None)
        if found is None:
            partial = any(each.startswith(text[position:]) for each in texts)
            return None, len(text) if partial else position
        position += len(found)
    return word, position
