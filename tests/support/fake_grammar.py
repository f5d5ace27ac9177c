"""A grammar backend for models whose tokens are numbers: ``ConstString("12")`` is the tokens 1 and 2.

The matcher raises at an ``x`` and hangs at a ``z``. A text with ``!`` does not compile. In a text that begins
with an ``f``, the tokens 3 and 4 are forced.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import takewhile
from typing import ClassVar

import fllm
from fllm.constraints import ConstString

HANG_SECONDS = 0.5


class Numbers:
    compiled: ClassVar[list[str]] = []
    """Texts compiled by any instance."""

    def __init__(self, context: fllm.GrammarContext) -> None:
        pass

    def compile(self, constraint: fllm.Constraint) -> fllm.CompiledGrammar:
        assert isinstance(constraint, ConstString)
        Numbers.compiled.append(constraint.text)
        if "!" in constraint.text:
            raise fllm.RequestError("no exclamation marks")
        return LineGrammar(constraint.text)

    def close(self) -> None:
        pass


class LineGrammar:
    def __init__(self, text: str) -> None:
        self.size = len(text)
        self._text = text

    def matcher(self) -> fllm.GrammarMatcher:
        return matcher_of(self._text)


def matcher_of(text: str) -> fllm.GrammarMatcher:
    return ForcingMatcher(text[1:]) if text.startswith("f") else LineMatcher(text)


class LineMatcher:
    def __init__(self, text: str) -> None:
        self._rest = text

    @property
    def is_accepting(self) -> bool:
        return not self._rest

    def fill_bitmask(self, mask: memoryview) -> None:
        mask[:] = memoryview(bytes(mask.nbytes)).cast("i")
        if self._rest[:1] == "x":
            raise ValueError("x marks the spot")
        if self._rest[:1] == "z":
            time.sleep(HANG_SECONDS)
        elif self._rest:
            mask[0] = 1 << int(self._rest[0])

    def accept_token(self, token_id: int) -> bool:
        allowed = self._rest[:1] == str(token_id)
        self._rest = self._rest[1:]
        return allowed


class ForcingMatcher(LineMatcher):
    def forced_tokens(self) -> list[int]:
        return [int(each) for each in takewhile(lambda each: each in "34", self._rest)]


@fllm.hookimpl
def fllm_grammars() -> Iterable[fllm.Entry]:
    yield fllm.Entry("numbers", f"{__name__}:Numbers")
