"""Regular expressions as all grammar backends understand them."""

from __future__ import annotations

import re

from fllm.errors import RequestError

MAX_REPEATS = 1000
"""A greater ``{n}`` makes too large an automaton."""

_SPECIAL = re.compile(
    r"""\\(?P<escape>.)
    | \(\?(?P<group> <?[=!] | P?< | P[=>] | [^:] )
    | (?P<repeats> \{ [0-9,]* \} )""",
    re.VERBOSE | re.DOTALL,
)
_REFUSED_ESCAPES = {
    **dict.fromkeys("bB", "word boundaries"),
    **dict.fromkeys("123456789k", "back references"),
    **dict.fromkeys("pPX", "Unicode properties"),
    **dict.fromkeys("AZzG", "anchors other than ^ and $"),
}


def check_pattern(pattern: str) -> None:
    """Raise `RequestError` for what finite automata can't do, or not in reasonable size."""
    for match in _SPECIAL.finditer(pattern):
        if (escape := match["escape"]) in _REFUSED_ESCAPES:
            raise _refused(pattern, f"{_REFUSED_ESCAPES[escape]} (\\{escape})")
        if (group := match["group"]) and group not in ("<", "P<"):
            what = "look-around" if group[-1] in "=!" else "flags and special groups"
            raise _refused(pattern, f"{what} ((?{group})")
        if (repeats := match["repeats"]) and any(
            int(number) > MAX_REPEATS for number in re.findall("[0-9]{1,9}", repeats)
        ):
            raise _refused(pattern, f"more than {MAX_REPEATS} repeats ({repeats})")


def _refused(pattern: str, what: str) -> RequestError:
    shown = pattern if len(pattern) <= 80 else f"{pattern[:80]}..."
    return RequestError(f"the pattern {shown!r} has {what}: not supported", code="unsupported_pattern")
