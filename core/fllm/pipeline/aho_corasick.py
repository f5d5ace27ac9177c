"""Multi-pattern string search in one pass over the text (Aho and Corasick, 1975)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import lru_cache


class Node:
    """A state of the automaton: the longest suffix of the text that is a prefix of one of the patterns."""

    __slots__ = ("depth", "match", "next", "suffix")

    def __init__(self, depth: int, suffix: Node | None = None) -> None:
        self.depth = depth
        """Length of that prefix."""
        self.match: str | None = None
        """Longest pattern that ends here."""
        self.next: dict[str, Node] = {}
        self.suffix = suffix
        """Suffix link: the state of the next shorter prefix. ``None`` at the root."""

    def step(self, char: str) -> Node:
        """Return the state after one more character, in amortized constant time."""
        node = self
        while char not in node.next:
            if node.suffix is None:
                return node
            node = node.suffix
        return node.next[char]


@lru_cache(maxsize=8)
def build_automaton(patterns: tuple[str, ...]) -> Node:
    """Return the root for these non-empty patterns. The automaton is immutable and shared by sequences."""
    root = Node(0)
    for pattern in patterns:
        node = root
        for char in pattern:
            node = node.next.setdefault(char, Node(node.depth + 1))
        node.match = pattern
    _link_suffixes(root)
    return root


def _link_suffixes(root: Node) -> None:
    """Set all suffix links, breadth first: each link points to a shorter prefix, which must be linked."""
    queue: deque[Node] = deque(_linked_children(root, root.next.items()))
    while queue:
        node = queue.popleft()
        queue.extend(_linked_children(node, node.next.items()))


def _linked_children(parent: Node, children: Iterable[tuple[str, Node]]) -> Iterable[Node]:
    for char, child in children:
        child.suffix = parent.suffix.step(char) if parent.suffix else parent
        child.match = child.match or child.suffix.match
        yield child
