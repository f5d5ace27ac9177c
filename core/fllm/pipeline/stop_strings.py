"""Stop strings: end the text at the first one, and hold back text that may become one."""

from __future__ import annotations

from collections.abc import Iterable

from fllm.pipeline.aho_corasick import build_automaton


class StopStrings:
    """Ends the text before (or with) the first stop string, and holds back text that may become one.

    The first stop string is the one that completes first; if two complete together, the longer one. Each
    character is examined once, however many stop strings there are.
    """

    def __init__(self, stop: Iterable[str], *, include: bool = False) -> None:
        self._root = self._node = build_automaton(tuple(stop))
        self._include = include
        self._pending: list[str] = []
        self._pending_length = 0
        self.matched: str | None = None
        """The stop string that was found. Nothing is emitted after it."""

    def feed(self, text: str) -> str:
        """Add text; return the text that certainly precedes any stop string."""
        if self.matched is not None or not self._root.next:
            return "" if self.matched is not None else text
        node = self._node
        for position, char in enumerate(text, start=1):
            node = node.step(char)
            if node.match is not None:
                self.matched = node.match
                end = self._pending_length + position
                return self._emit(text[:position], end if self._include else end - len(node.match))
        self._node = node
        return self._emit(text, self._pending_length + len(text) - node.depth)

    def finish(self) -> str:
        """Return the pending text at the end of the sequence."""
        return "" if self.matched is not None else self._emit("", self._pending_length)

    def _emit(self, text: str, count: int) -> str:
        """Append ``text`` to the pending text, then remove and return its first ``count`` characters."""
        self._pending.append(text)
        self._pending_length += len(text)
        if not count:
            return ""
        pending = "".join(self._pending)
        self._pending, self._pending_length = [pending[count:]], self._pending_length - count
        return pending[:count]
