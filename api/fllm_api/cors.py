"""Which web pages may call the API, and the headers that tell their browsers (CORS, WHATWG Fetch 3.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable

ANY_PAGE = "*"
LOCAL_PAGES = "localhost"
"""Stands for the pages of servers on the browser's own machine, with any port."""

MAX_AGE = b"600"
"""Seconds that a browser keeps the result of a preflight request."""
METHODS = b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
EXPOSED = (
    b"request-id, retry-after, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, "
    b"x-ratelimit-reset-tokens, x-request-id"
)
"""Headers of a response that a page may read, apart from the ones it always may."""

_LOCAL = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.*-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?|null")

Headers = Iterable[tuple[bytes, bytes]]


class Cors:
    """The pages that may call the API, by their origins."""

    def __init__(self, origins: Iterable[str]) -> None:
        named = set(origins)
        self._allows_any = ANY_PAGE in named
        self._allows_local = LOCAL_PAGES in named
        listed = (each.encode().partition(b"*") for each in named - {ANY_PAGE, LOCAL_PAGES})
        self._listed = {(beginning, end) if star else (beginning, None) for beginning, star, end in listed}
        """Beginning and end of each listed origin, or the origin alone."""

    def response_headers(self, request: Headers) -> list[tuple[bytes, bytes]]:
        """Return the headers to add to a response."""
        vary = [] if self._allows_any else [(b"vary", b"Origin")]
        if not (origin := self._allowed_origin(request)):
            return vary
        # Only pages that the operator has listed are trusted with the visitor's cookies.
        credentials = [(b"access-control-allow-credentials", b"true")] if self._is_listed(origin) else []
        return [
            (b"access-control-allow-origin", origin),
            *credentials,
            (b"access-control-expose-headers", EXPOSED),
            *vary,
        ]

    def preflight_headers(self, request: Headers) -> list[tuple[bytes, bytes]] | None:
        """Return the headers of the response to an allowed preflight request; ``None`` for others."""
        sent = dict(request)
        if b"access-control-request-method" not in sent or not self._allowed_origin(request):
            return None
        optional = {
            b"access-control-allow-headers": sent.get(b"access-control-request-headers"),
            b"access-control-allow-private-network": sent.get(b"access-control-request-private-network"),
        }
        return [
            *self.response_headers(request),
            (b"access-control-allow-methods", METHODS),
            (b"access-control-max-age", MAX_AGE),
            *((name, value) for name, value in optional.items() if value is not None),
        ]

    def _allowed_origin(self, request: Headers) -> bytes:
        """Return the value of ``Access-Control-Allow-Origin``; empty if the request's page is not allowed."""
        origin = next((value for name, value in request if name == b"origin"), b"")
        if origin and self._allows_any:
            return b"*"
        is_local = self._allows_local and _LOCAL.fullmatch(origin.decode("latin-1"))
        return origin if is_local or self._is_listed(origin) else b""

    def _is_listed(self, origin: bytes) -> bool:
        return any(
            origin == beginning
            if end is None
            else len(origin) > len(beginning + end) and origin.startswith(beginning) and origin.endswith(end)
            for beginning, end in self._listed
        )


def normalize_origin(text: str) -> str:
    """Return an origin as browsers send it, or one of the words that stand for origins.

    A ``*`` within an origin stands for any text. Raise `ValueError` if it is none of these, or has two.
    """
    origin = text.lower().removesuffix("/")
    if origin in (ANY_PAGE, LOCAL_PAGES) or (_ORIGIN.fullmatch(origin) and origin.count("*") < 2):
        return origin
    raise ValueError(f"{text!r} is not an origin such as https://example.org")
