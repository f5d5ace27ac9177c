"""The rules of a grammar in llguidance's Lark dialect."""

from __future__ import annotations

EMPTY = '""'
"""The expression of an empty text."""


class LarkRules:
    """Collects rules, which expressions refer to by name. Equal rules are one rule."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        """Names of rules and terminals by their definitions."""
        self._lines: list[str] = []

    def add(self, expression: str, *, attributes: str = "") -> str:
        """Add a rule and return its name."""
        return self._add("r", attributes, expression)

    def add_terminal(self, expression: str) -> str:
        """Add a terminal, an expression of regular expressions, and return its name."""
        return self._add("T", "", expression)

    def reserve(self) -> str:
        """Return the name of a rule that `define` defines later, since it may refer to itself."""
        self._lines.append("")
        return f"r{len(self._lines) - 1}"

    def define(self, name: str, expression: str) -> None:
        """Set the expression of a rule whose name is reserved."""
        self._lines[int(name[1:])] = f"{name}: {expression}"

    def text(self) -> str:
        """Return the source of all rules."""
        return "\n".join(self._lines)

    def _add(self, prefix: str, attributes: str, expression: str) -> str:
        definition = f"{prefix}{attributes}: {expression}"
        if definition not in self._names:
            name = f"{prefix}{len(self._lines)}"
            self._lines.append(f"{name}{attributes}: {expression}")
            self._names[definition] = name
        return self._names[definition]


def sequence(*parts: str) -> str:
    """Return the expression of texts one after the other."""
    return " ".join(part for part in parts if part and part != EMPTY) or EMPTY


def repeated(item: str, lower: int, upper: int | None) -> str:
    """Return the expression of an item from ``lower`` to ``upper`` times."""
    if upper == 0:
        return EMPTY
    return f"({item}){{{lower},{'' if upper is None else upper}}}"
