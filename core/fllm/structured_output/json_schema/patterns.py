"""Check that a regular expression is supported by all grammar backends."""

from __future__ import annotations

import re

from fllm.errors import RequestError

MAX_REPEATS = 1000
"""Maximum ``n`` of a repeat ``{n}``: a larger one makes the automaton too large."""

_SPECIAL = re.compile(
    r"""\\(?P<escape>.)
    | \(\?(?P<group> <?[=!] | P?< | P[=>] | [^:] )
    | (?P<repeats> \{ [0-9,]* \} )""",
    re.VERBOSE | re.DOTALL,
)
_UNSUPPORTED_ESCAPES = {
    **dict.fromkeys("bB", "word boundaries"),
    **dict.fromkeys("123456789k", "back references"),
    **dict.fromkeys("pPX", "Unicode properties"),
    **dict.fromkeys("AZzG", "anchors other than ^ and $"),
}


def check_pattern(pattern: str) -> None:
    """Raise `RequestError` for features that need more than a finite automaton of reasonable size."""
    for match in _SPECIAL.finditer(pattern):
        if (escape := match["escape"]) in _UNSUPPORTED_ESCAPES:
            raise _unsupported(pattern, f"{_UNSUPPORTED_ESCAPES[escape]} (\\{escape})")
        if (group := match["group"]) and group not in ("<", "P<"):
            what = "look-around" if group[-1] in "=!" else "flags and special groups"
            raise _unsupported(pattern, f"{what} ((?{group})")
        if (repeats := match["repeats"]) and any(
            int(number) > MAX_REPEATS for number in re.findall("[0-9]{1,9}", repeats)
        ):
            raise _unsupported(pattern, f"more than {MAX_REPEATS} repeats ({repeats})")


def _unsupported(pattern: str, what: str) -> RequestError:
    shown = pattern if len(pattern) <= 80 else f"{pattern[:80]}..."
    return RequestError(
        f"unsupported pattern {shown!r}: {what} are not supported", code="unsupported_pattern"
    )
