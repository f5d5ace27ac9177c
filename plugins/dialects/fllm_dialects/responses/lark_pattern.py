"""Turn a Lark grammar whose rules do not refer to themselves into a regular expression."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NoReturn

from msgspec import Struct

from fllm import RequestError
from fllm.structured_output.json_schema.patterns import check_pattern

MAX_PATTERN_CHARS = 16_384
"""Maximum length of a regular expression: a rule is written out wherever it is used."""
_MAX_GRAMMAR_CHARS = 32_768

_STATEMENT = re.compile(
    r"[!?]*(?P<name>_?[a-z][a-z0-9_]*|_?[A-Z][A-Z0-9_]*)(?:\.-?\d+)?[ \t]*:(?P<expansions>.*)", re.DOTALL
)
_BEGINS = re.compile(r"^[ \t]*(?=%|[!?]*[_A-Za-z][^\n:\"/|()]*:)", re.MULTILINE)
"""Where a line begins a statement; other lines continue the one before."""
_IMPORT = re.compile(
    r"%import\s+common\s*(?:\.\s*(?P<one>\w+)(?:\s*->\s*(?P<alias>\w+))?|\((?P<several>[\w\s,]+)\))"
    r"(?:\s|(?://|\#)[^\n]*(?:\n|\Z))*\Z"
)
_TOKEN = re.compile(
    r"""\s+ | (?://|\#)[^\n]*
    | (?P<string> "(?:\\.|[^"\\\n])*"i?)
    | (?P<regex> /(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*)
    | (?P<name> _?[A-Za-z]\w*)
    | (?P<number> \d+)
    | (?P<sign> \.\.|->|[|()\[\]{}?*+~,])
    | (?P<other> .)""",
    re.VERBOSE,
)
_DECIMAL = r"(?:[0-9]+\.[0-9]*|\.[0-9]+)"
_FLOAT = rf"(?:[0-9]+[eE][+-]?[0-9]+|{_DECIMAL}(?:[eE][+-]?[0-9]+)?)"
_COMMON = {
    "DIGIT": "[0-9]",
    "HEXDIGIT": "[a-fA-F0-9]",
    "INT": "[0-9]+",
    "SIGNED_INT": "[+-]?[0-9]+",
    "DECIMAL": _DECIMAL,
    "FLOAT": _FLOAT,
    "SIGNED_FLOAT": rf"[+-]?{_FLOAT}",
    "NUMBER": rf"(?:{_FLOAT}|[0-9]+)",
    "SIGNED_NUMBER": rf"[+-]?(?:{_FLOAT}|[0-9]+)",
    "ESCAPED_STRING": r'"(?:[^"\\\n]|\\[^\n])*"',
    "LCASE_LETTER": "[a-z]",
    "UCASE_LETTER": "[A-Z]",
    "LETTER": "[A-Za-z]",
    "WORD": "[A-Za-z]+",
    "CNAME": "[_A-Za-z][_A-Za-z0-9]*",
    "WS_INLINE": r"[ \t]+",
    "WS": r"[ \t\f\r\n]+",
    "CR": r"\r",
    "LF": r"\n",
    "NEWLINE": r"(?:\r?\n)+",
    "SH_COMMENT": r"#[^\n]*",
    "CPP_COMMENT": r"\/\/[^\n]*",
    "SQL_COMMENT": r"--[^\n]*",
}
"""Terminals that a grammar can import, after Lark's ``grammars/common.lark``."""
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "b": "\b", "v": "\v", "0": "\0"}
_PLAIN = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


class LarkError(ValueError):
    """The text is not a Lark grammar."""


class _NotRegular(Exception):
    """A grammar that this module does not express as a regular expression."""


class _Token(Struct, frozen=True):
    kind: str
    text: str


def lark_pattern(grammar: str) -> str | None:
    """Return a regular expression for the texts of a Lark grammar, whose first rule is ``start``.

    Return ``None`` if none of reasonable length is found: rules may refer to themselves, or use what Lark
    has beyond regular expressions. Raise `LarkError` if the grammar is invalid.
    """
    try:
        pattern = _Grammar(grammar).pattern()
        check_pattern(pattern, unicode_properties=True)
    except (_NotRegular, RequestError, RecursionError):
        return None
    return pattern


class _Grammar:
    def __init__(self, source: str) -> None:
        if len(source) > _MAX_GRAMMAR_CHARS:
            raise _NotRegular
        self._expansions: dict[str, str] = {}
        """The right sides of rules and terminals."""
        self._patterns: dict[str, str] = {}
        self._ignored: list[str] = []
        self._open: list[str] = []
        """The rules that are being written out, of which each contains the next."""
        self._between = ""
        """What may follow each terminal."""
        for statement in _statements(source):
            self._add(statement)

    def pattern(self) -> str:
        """Return the regular expression."""
        if "start" not in self._expansions:
            raise LarkError("it has no rule `start`")
        if self._ignored:
            ignored = "|".join(self._expanded(each, is_terminal=True) for each in self._ignored)
            self._between = f"(?:{ignored})*"
        return self._between + self._named("start")

    def _add(self, statement: str) -> None:
        if statement.startswith("%ignore"):
            self._ignored.append(statement.removeprefix("%ignore"))
        elif statement.startswith("%"):
            self._import(_IMPORT.match(statement) or _refuse())
        else:
            match = _STATEMENT.match(statement) or _refuse()
            self._expansions[match["name"]] = match["expansions"]

    def _import(self, match: re.Match[str]) -> None:
        for name in re.findall(r"\w+", match["one"] or match["several"]):
            if name not in _COMMON:
                raise _NotRegular
            self._patterns[match["alias"] or name] = _COMMON[name]

    def _named(self, name: str) -> str:
        if name in self._open:
            raise _NotRegular
        if name not in self._patterns:
            if name not in self._expansions:
                raise LarkError(f"it has no rule {name!r}")
            self._open.append(name)
            is_terminal = name.strip("_").isupper()
            self._patterns[name] = self._expanded(self._expansions[name], is_terminal=is_terminal)
            self._open.pop()
        return self._patterns[name]

    def _expanded(self, expansions: str, *, is_terminal: bool) -> str:
        return _Expansions(expansions, self._named, "" if is_terminal else self._between).pattern()


class _Expansions:
    """The right side of a rule."""

    def __init__(self, source: str, named: Callable[[str], str], between: str) -> None:
        self._tokens = list(_tokens(source))
        self._position = 0
        self._named = named
        self._between = between

    def pattern(self) -> str:
        """Return its regular expression."""
        pattern = self._alternatives()
        if self._next is not None:
            raise LarkError(f"{self._next.text!r} is not expected")
        return pattern

    @property
    def _next(self) -> _Token | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def _take(self, *signs: str) -> str:
        """Return the next token and go on if it is one of these; else return an empty text."""
        token = self._next
        if token is None or token.text not in signs or token.kind != "sign":
            return ""
        self._position += 1
        return token.text

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise LarkError(f"{sign!r} is missing")

    def _alternatives(self) -> str:
        options, length = [self._sequence()], 0
        while self._take("|"):
            options.append(self._sequence())
            length = _checked(length + len(options[-1]))
        return options[0] if len(options) == 1 else f"(?:{'|'.join(dict.fromkeys(options))})"

    def _sequence(self) -> str:
        parts, length = list[str](), 0
        while (token := self._next) is not None and (token.kind != "sign" or token.text in ("(", "[")):
            parts.append(self._repeated(self._atom()))
            length = _checked(length + len(parts[-1]))
        if self._take("->"):
            self._position += 1  # the name of an alternative
        return "".join(parts)

    def _repeated(self, atom: str) -> str:
        while sign := self._take("?", "*", "+", "~", "{"):
            if sign == "~":
                sign = self._numbers("..")
            elif sign == "{":
                sign = self._numbers(",")
                self._expect("}")
            atom = f"{atom if len(atom) == 1 else f'(?:{atom})'}{sign}"
            _checked(len(atom))
        return atom

    def _numbers(self, separator: str) -> str:
        lower = self._number()
        if not self._take(separator):
            return f"{{{lower or _refuse()}}}"
        return f"{{{lower or 0},{self._number()}}}"

    def _number(self) -> str:
        token = self._next
        if token is None or token.kind != "number":
            return ""
        self._position += 1
        return token.text

    def _atom(self) -> str:
        if opening := self._take("(", "["):
            inner = self._alternatives()
            self._expect(")" if opening == "(" else "]")
            return inner if opening == "(" else f"(?:{inner})?"
        token = self._tokens[self._position]
        self._position += 1
        match token.kind:
            case "string":
                return self._string(token.text) + self._between
            case "regex":
                return _regex(token.text) + self._between
            case "name":
                is_terminal = token.text.strip("_").isupper()
                return self._named(token.text) + (self._between if is_terminal else "")
            case _:
                raise _NotRegular

    def _string(self, text: str) -> str:
        literal, flag = _unquoted(text)
        if self._take(".."):
            token = self._next
            self._position += 1
            last, _ = _unquoted(token.text if token is not None and token.kind == "string" else _refuse())
            if len(literal) != 1 or len(last) != 1 or literal > last:
                raise LarkError("the ends of a range are single characters in ascending order")
            return f"[{_escaped(literal)}-{_escaped(last)}]"
        if not flag:
            return "".join(map(_escaped, literal))
        cases = (dict.fromkeys((each.lower(), each.upper())) for each in literal)
        return "".join(f"(?:{'|'.join(map(_escaped, each))})" for each in cases)


def _refuse() -> NoReturn:
    raise _NotRegular


def _checked(length: int) -> int:
    """Return the length of a pattern. Raise `_NotRegular` if it is too large."""
    if length > MAX_PATTERN_CHARS:
        raise _NotRegular
    return length


def _statements(source: str) -> Iterator[str]:
    """Yield each rule, terminal and directive."""
    source = source.replace("\r\n", "\n")
    starts = [match.end() for match in _BEGINS.finditer(source)]
    if any(_tokens(source[: starts[0]] if starts else source)):
        _refuse()
    for start, end in zip(starts, [*starts[1:], len(source)], strict=False):
        yield source[start:end].strip()


def _tokens(source: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(source):
        if match.lastgroup == "other":  # such as the names of special tokens, and templates
            raise _NotRegular
        if match.lastgroup is not None:
            yield _Token(match.lastgroup, match[match.lastgroup])


def _unquoted(token: str) -> tuple[str, str]:
    """Return the text of a string and its flag."""
    text, flag = token[1:].rsplit('"', 1)
    escape = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))")
    return escape.sub(lambda match: _character(match), text), flag


def _character(match: re.Match[str]) -> str:
    if code := match[1] or match[2]:
        return chr(int(code, 16))
    return _ESCAPES.get(match[3], match[3])


def _escaped(character: str) -> str:
    return _PLAIN.get(character) or re.sub(r"[\\^$.|?*+()\[\]{}-]", r"\\\g<0>", character)


def _regex(token: str) -> str:
    """Return the pattern of a regular expression with Lark's flags; a dot matches all but a line feed."""
    pattern, flags = token[1:].rsplit("/", 1)
    if set(flags) - set("smu"):
        raise _NotRegular
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise LarkError(f"{token} is not a regular expression: {error}") from error
    dot = r"[\s\S]" if "s" in flags else r"[^\n]"
    skipped = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\.", re.DOTALL)
    pattern = skipped.sub(lambda match: dot if match[0] == "." else match[0], pattern)
    return f"(?:{pattern})" if "|" in pattern else pattern
