"""The project's regular expressions take linear time, and none is built from a client's text."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest
from support.paths import ROOT

PACKAGES = (
    "core/fllm",
    "api/fllm_api",
    "plugins/parsers/fllm_parsers",
    "plugins/bench/fllm_bench",
    "plugins/metrics/fllm_metrics",
    "plugins/placements/fllm_placements",
    "plugins/page/fllm_page",
    "plugins/pooling/fllm_pooling",
    "plugins/terminal/fllm_terminal",
)
SOURCES = [*(ROOT / folder for folder in PACKAGES), ROOT / "plugins/backends/fllm_backends"]
ALPHABET = frozenset(map(chr, range(128))) | set("éДあ\u2028\x85\xa0")
GIVES_BACK = (sre.MAX_REPEAT, sre.MIN_REPEAT)
NOTHING: frozenset[str] = frozenset()


def characters(code: Any, argument: Any) -> frozenset[str] | set[str]:
    """Return the characters that a single-character item of a pattern matches."""
    match code:
        case sre.LITERAL:
            return {chr(argument)}
        case sre.NOT_LITERAL:
            return ALPHABET - {chr(argument)}
        case sre.ANY:
            return ALPHABET
        case _:
            # A negated set begins with NEGATE.
            found = {
                c for c in ALPHABET if any(_in(c, item) for item in argument if item[0] is not sre.NEGATE)
            }
            return ALPHABET - found if argument[0][0] is sre.NEGATE else found


def _in(character: str, item: tuple[Any, Any]) -> bool:
    match item:
        case (sre.LITERAL, code):
            return ord(character) == code
        case (sre.RANGE, (low, high)):
            return bool(low <= ord(character) <= high)
        case (_, category):
            name = str(category).removeprefix("CATEGORY_")
            letter = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}[name.removeprefix("NOT_")]
            return bool(re.match(letter, character)) is not name.startswith("NOT_")


class Walk:
    """Walks through a pattern and records each repeat that can match what an earlier one can give back."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def sequence(self, items: Any, open_sets: frozenset[str]) -> tuple[frozenset[str], frozenset[str], bool]:
        """Return what the last repeats can give back, all characters, and whether it may be empty."""
        every, empty = NOTHING, True
        for code, argument in items:
            open_sets, found, may_be_empty = self.item(code, argument, open_sets)
            every |= found
            empty = empty and may_be_empty
        return open_sets, every, empty

    def item(
        self, code: Any, argument: Any, before: frozenset[str]
    ) -> tuple[frozenset[str], frozenset[str], bool]:
        if code in GIVES_BACK or code is sre.POSSESSIVE_REPEAT:
            return self.repeat(code, argument, before)
        if code is sre.SUBPATTERN:
            return self.sequence(argument[-1], before)
        if code is sre.ATOMIC_GROUP:
            _, found, empty = self.sequence(argument, NOTHING)
            return (before if empty else NOTHING), found, empty
        if code is sre.BRANCH:
            ways = [self.sequence(way, before) for way in argument[1]]
            return (
                frozenset().union(*(way[0] for way in ways)),
                frozenset().union(*(way[1] for way in ways)),
                any(way[2] for way in ways),
            )
        if code in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            return before, NOTHING, True
        # A required character ends the walk: `a*ba*` is followed no further, even where b may be a.
        return NOTHING, frozenset(characters(code, argument)), False

    def repeat(
        self, code: Any, argument: Any, before: frozenset[str]
    ) -> tuple[frozenset[str], frozenset[str], bool]:
        least, most, body = argument
        if most is not sre.MAXREPEAT:
            after, found, empty = self.sequence(body, before)
            return (after | before if least == 0 else after), found, empty or least == 0
        inner, found, _ = self.sequence(body, NOTHING)
        gives_back = code in GIVES_BACK
        if gives_back and inner & found:
            self.faults.append("a repeat within a repeat")
        if before & found:
            self.faults.append(f"two repeats can both take {sorted(before & found)[:5]}")
        own = found if gives_back else NOTHING
        return (own | before if least == 0 else own), found, least == 0


def faults(pattern: re.Pattern[str] | str) -> list[str]:
    """Return the reasons why matching from one position may take more than linear time."""
    flags, text = (pattern.flags, pattern.pattern) if isinstance(pattern, re.Pattern) else (0, pattern)
    walk = Walk()
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    walk.sequence(_parser.parse(text, flags if flags & re.ASCII else flags | re.UNICODE), NOTHING)
    return walk.faults


def modules() -> Iterator[Any]:
    for folder in PACKAGES:
        name = Path(folder).name
        package = importlib.import_module(name)
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield the patterns that the project's modules and classes hold."""
    for module in modules():
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                yield f"{module.__name__}.{name}", value
            elif isinstance(value, type) and value.__module__ == module.__name__:
                for attribute, each in vars(value).items():
                    if isinstance(each, re.Pattern):
                        yield f"{module.__name__}.{name}.{attribute}", each


def test_no_pattern_can_divide_a_text_between_two_repeats() -> None:
    found = dict(patterns())
    assert len(found) > 40
    assert {name: bad for name, pattern in found.items() if (bad := faults(pattern))} == {}


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+",
        r"(?:a*)*b",
        r"\s*([^\n]+)x",
        r"a* *\w* *x",
        r"[0-9_]*\.?[0-9_]*x",
        r"(?:a|b*)*c",
        r"a*(?:x|a)*b",
    ],
)
def test_the_walk_finds_patterns_that_backtrack(pattern: str) -> None:
    assert faults(pattern)


@pytest.mark.parametrize(
    "pattern", [r"a*b*", r"a*+a*", r"\s*\w+\s*", r"(?:ab*)?c*", r"[^a]*a[^a]*", r"(?:\s*+,)*"]
)
def test_the_walk_accepts_patterns_that_do_not(pattern: str) -> None:
    assert faults(pattern) == []


BUILT_WHILE_SERVING = {
    "core/fllm/chat/image_prompt.py",
    "core/fllm/control_tokens.py",
    "core/fllm/parsing/literal_scanner.py",
    "core/fllm/parsing/markers.py",
    "core/fllm/parsing/tag_scanner.py",
    "core/fllm/parsing/tool_call_parser.py",
    "core/fllm/parsing/tagged_tool_calls.py",
    "core/fllm/tokenizer.py",
    "plugins/backends/fllm_backends/grammars/xgrammar/structural_tags.py",
}
"""Modules that build patterns while serving: from escaped constants, never from a client's text."""
OF_THE_OPERATOR = {"plugins/backends/fllm_backends/checkpoints/lora.py"}
"""Patterns of files that the operator provides, without those that may be slow."""
PARSES_CLIENT_PATTERNS = "plugins/backends/fllm_backends/grammars/patterns.py"
"""Parsed in a worker process; nothing is matched."""


def test_no_pattern_is_built_from_a_clients_text() -> None:
    built, parsed = set(), set()
    for path in (path for folder in SOURCES for path in folder.rglob("*.py")):
        where, tree = str(path.relative_to(ROOT)), ast.parse(path.read_text())
        if "_parser" in {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}:
            parsed.add(where)
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                match call:
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=verb), args=[first, *_]):
                        if verb != "escape" and not isinstance(first, ast.Constant | ast.Name):
                            built.add(where)
    assert built <= BUILT_WHILE_SERVING | OF_THE_OPERATOR
    assert parsed == {PARSES_CLIENT_PATTERNS}
