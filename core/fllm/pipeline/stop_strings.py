"""Small stages of text that others are made of."""

from __future__ import annotations

from collections.abc import Iterable

from fllm.pipeline.aho_corasick import automaton


class StopStrings:
    """Ends the text before (or with) the first stop string; holds back what may become one.

    "First" is the one that completes first; of two that end together, the longer. However many strings there
    are, each character is looked at once.
    """

    def __init__(self, stop: Iterable[str], *, include: bool = False) -> None:
        self._root = self._node = automaton(tuple(stop))
        self._include = include
        self._held: list[str] = []
        self._length = 0  # of what is held
        self.matched: str | None = None
        """The stop string that was found; nothing is emitted after it."""

    def feed(self, text: str) -> str:
        """Take a piece; give what is certain to come before any stop string."""
        if self.matched is not None or not self._root.next:
            return "" if self.matched is not None else text
        node = self._node
        for position, char in enumerate(text, start=1):
            node = node.step(char)
            if node.ends is not None:
                self.matched = node.ends
                end = self._length + position
                return self._take(text[:position], end if self._include else end - len(node.ends))
        self._node = node
        return self._take(text, self._length + len(text) - node.depth)

    def finish(self) -> str:
        """No more will come: give what was held back."""
        return "" if self.matched is not None else self._take("", self._length)

    def _take(self, text: str, count: int) -> str:
        """Hold back a text; give so many characters of all that is held."""
        self._held.append(text)
        self._length += len(text)
        if not count:
            return ""
        whole = "".join(self._held)
        self._held, self._length = [whole[count:]], self._length - count
        return whole[:count]
