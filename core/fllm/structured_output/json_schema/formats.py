"""Patterns for the values of ``format``. Each allows a subset of what its standard allows."""

from __future__ import annotations

_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_DATE = (
    r"[12][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_LABEL = "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,3}}"
_EMAIL = rf"[A-Za-z0-9_%+-]{{1,30}}(\.[A-Za-z0-9_%+-]{{1,15}}){{0,2}}@{_HOST}"
_PATH = r"(/[A-Za-z0-9._~-]+)*"
_URI = rf"[a-z][a-z0-9+.-]*://{_HOST}(:[0-9]{{1,4}})?{_PATH}/?(\?[A-Za-z0-9._~=&-]+)?(#[A-Za-z0-9._~-]+)?"

FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": r"P([0-9]{1,4}D(T[0-9]{1,4}H)?|T[0-9]{1,4}[HMS]|[0-9]{1,4}[WMY])",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    **dict.fromkeys(("email", "idn-email"), _EMAIL),
    **dict.fromkeys(("hostname", "idn-hostname"), _HOST),
    "ipv4": rf"({_BYTE}\.){{3}}{_BYTE}",
    "ipv6": r"([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
    **dict.fromkeys(("uri", "iri", "uri-template"), _URI),
    **dict.fromkeys(("uri-reference", "iri-reference"), f"({_URI}|{_PATH})"),
    "json-pointer": _PATH,
    "relative-json-pointer": rf"(0|[1-9][0-9]{{0,3}}){_PATH}",
}
"""Unanchored patterns by format, after RFC 3339, 4122, 5321, 1123, 4291, 3986 and 6901."""

IMPOSSIBLE_FORMATS = ("regex",)
"""Formats that no pattern describes, of which most texts are invalid."""

ENCODINGS = {
    "base64": "([0-9A-Za-z+/]{4})*([0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=)?",
    "base64url": "([0-9A-Za-z_-]{4})*([0-9A-Za-z_-]{2,3})?",
}
"""Unanchored patterns by ``contentEncoding``, after RFC 4648."""
