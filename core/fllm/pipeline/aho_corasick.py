"""Many strings looked for at once, in time that depends on the text alone (Aho and Corasick, 1975)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import lru_cache


class Node:
    """What is known behind a character: the longest end of the text that begins one of the strings."""

    __slots__ = ("depth", "ends", "next", "shorter")

    def __init__(self, depth: int, shorter: Node | None = None) -> None:
        self.depth = depth
        """Length of that end."""
        self.ends: str | None = None
        """The longest string that is complete here."""
        self.next: dict[str, Node] = {}
        self.shorter = shorter
        """The next shorter end that begins one; none at the root."""

    def step(self, char: str) -> Node:
        """What is known with one character more; amortized, as many moves as characters."""
        node = self
        while char not in node.next:
            if node.shorter is None:
                return node
            node = node.shorter
        return node.next[char]


@lru_cache(maxsize=8)
def automaton(strings: tuple[str, ...]) -> Node:
    """The root for these strings, none of them empty; it never changes, and all answers share it."""
    root = Node(0)
    for string in strings:
        node = root
        for char in string:
            node = node.next.setdefault(char, Node(node.depth + 1))
        node.ends = string
    _link(root)
    return root


def _link(root: Node) -> None:
    """Breadth first, since what is shorter must have been linked before."""
    waiting: deque[Node] = deque(_children(root, root.next.items()))
    while waiting:
        node = waiting.popleft()
        waiting.extend(_children(node, node.next.items()))


def _children(parent: Node, children: Iterable[tuple[str, Node]]) -> Iterable[Node]:
    for char, child in children:
        child.shorter = parent.shorter.step(char) if parent.shorter else parent
        child.ends = child.ends or child.shorter.ends
        yield child
