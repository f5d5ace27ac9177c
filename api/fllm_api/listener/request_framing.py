"""What the parser lets pass, and a proxy before us might read another way: request smuggling lives of it.

llhttp itself refuses Content-Length beside Transfer-Encoding, or twice; folded lines; a bare CR or LF; a
space before a colon; and every size that is no plain number.
"""

from __future__ import annotations

from collections.abc import Sequence

import httptools

from fllm_api.listener.rejection import Refusal

Headers = Sequence[tuple[bytes, bytes]]


def check_framing(version: str, method: bytes, url: bytes, headers: Headers) -> None:
    """Raises `Refusal` unless there is but one way to read where this request ends, and whom it is for."""
    if version not in ("1.1", "1.0"):
        raise Refusal(505, f"HTTP/{version} is not served, HTTP/1.1 is")
    if method == b"CONNECT":
        raise Refusal(501, "this server is no proxy: CONNECT is not served")
    if httptools.parse_url(url).path is None:
        raise Refusal(400, "the request's URL has no path")
    _check_encoding(version, _values(headers, b"transfer-encoding"))
    hosts = len(_values(headers, b"host"))
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise Refusal(400, f"a request needs exactly one Host header; this one has {hosts}")


def without_upgrade(parser: httptools.HttpRequestParser, url: bytes, headers: Headers) -> bytes:
    """The head of a request that goes on without the upgrade that it offers (RFC 9110, 7.8).

    The parser takes what follows such a head for another protocol, but Java's client sends a body as ever.
    """
    kept = [(name, value) for name, value in headers if name not in (b"upgrade", b"connection")]
    if not parser.should_keep_alive():
        kept.append((b"connection", b"close"))
    first = b"%s %s HTTP/%s" % (parser.get_method(), url, parser.get_http_version().encode())
    return b"\r\n".join([first, *(name + b": " + value for name, value in kept), b"", b""])


def _check_encoding(version: str, encodings: list[bytes]) -> None:
    if not encodings:
        return
    if version == "1.0":
        raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding")
    if [encoding.lower() for encoding in encodings] != [b"chunked"]:
        raise Refusal(501, "the only Transfer-Encoding served is chunked, by itself")


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]
