"""The work of a parser on a text, counted and not timed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from fllm import ParserContext

OURS = ("fllm", "fllm_parsers")


class Stage(Protocol):
    """A parser or another stage of the pipeline."""

    def feed(self, text: str, /) -> object:
        """Process a piece."""

    def finish(self) -> object:
        """End the text."""


class Work:
    """The number of lines executed in our modules and of characters scanned by their regular expressions."""

    def __init__(self) -> None:
        self.done = 0

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """Count lines, as a function for `sys.settrace`; other modules are not traced."""
        if frame.f_globals.get("__name__", "").partition(".")[0] not in OURS:
            return None
        self.done += event == "line"
        return self.trace


class CountingPattern:
    """A compiled pattern that counts the characters it scans."""

    def __init__(self, pattern: re.Pattern[str], work: Work) -> None:
        self._pattern = pattern
        self._work = work

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pattern, name)

    def match(self, text: str, start: int = 0) -> re.Match[str] | None:
        """Count the match, or one character if there is none, since our patterns of runs are possessive."""
        return self._anchored(self._pattern.match(text, start), start)

    def fullmatch(self, text: str, start: int = 0) -> re.Match[str] | None:
        """Count the whole text: the match may fail at its end."""
        self._work.done += len(text) - start
        return self._pattern.fullmatch(text, start)

    def search(self, text: str, start: int = 0) -> re.Match[str] | None:
        """Count the text up to the end of the match."""
        found = self._pattern.search(text, start)
        self._work.done += (found.end() if found else len(text)) - start
        return found

    def finditer(self, text: str, start: int = 0) -> Iterator[re.Match[str]]:
        """Count the text up to the last match that was requested."""
        end = start
        for found in self._pattern.finditer(text, start):
            self._work.done += found.end() - end
            end = found.end()
            yield found
        self._work.done += len(text) - end

    def sub(self, new: Any, text: str) -> str:
        """Count the whole text."""
        self._work.done += len(text)
        return self._pattern.sub(new, text)

    def _anchored(self, found: re.Match[str] | None, start: int) -> re.Match[str] | None:
        self._work.done += found.end() - start if found else 1
        return found


def work_of(make: Callable[[], Stage], text: str, size: int) -> int:
    """Return the work of a new parser on a text that arrives in pieces of ``size``."""
    work = Work()
    with _counting(work):
        parser = make()
        before = sys.gettrace()
        sys.settrace(work.trace)
        try:
            for start in range(0, len(text), size):
                parser.feed(text[start : start + size])
                work.done += _held(parser)
            parser.finish()
        finally:
            sys.settrace(before)
    return work.done


def _held(thing: object, depth: int = 3) -> int:
    """Return the length of all strings it holds: they are copied when the next piece is appended."""
    if isinstance(thing, str):
        return len(thing)
    if not depth or isinstance(thing, ParserContext | CountingPattern):
        return 0
    fields: tuple[str, ...] = getattr(thing, "__struct_fields__", ())
    names = fields or tuple(getattr(thing, "__dict__", ()))
    return sum(_held(getattr(thing, name), depth - 1) for name in names)


@contextmanager
def _counting(work: Work) -> Iterator[None]:
    """Replace the patterns of our modules and classes, and new ones, with counting patterns."""
    real, replaced = re.compile, list[tuple[Any, str, re.Pattern[str]]]()
    for owner in _owners():
        for name, value in list(getattr(owner, "__dict__", {}).items()):
            if isinstance(value, re.Pattern):
                replaced.append((owner, name, value))
                setattr(owner, name, CountingPattern(value, work))
    re.compile = lambda *arguments: CountingPattern(real(*arguments), work)  # type: ignore[assignment]
    try:
        yield
    finally:
        re.compile = real
        for owner, name, value in replaced:
            setattr(owner, name, value)


def _owners() -> Iterator[Any]:
    """Yield our modules and the classes in them."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in OURS:
            yield module
            yield from (
                kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == name
            )
