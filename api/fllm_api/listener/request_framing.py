"""Checks of request framing that the HTTP parser leaves out: they prevent request smuggling through a proxy.

llhttp itself rejects Content-Length together with Transfer-Encoding or repeated, folded lines, a bare CR or
LF, a space before a colon, and sizes that are not plain numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import httptools

from fllm_api.listener.rejection import RequestRejected

Headers = Sequence[tuple[bytes, bytes]]


def check_framing(version: str, method: bytes, url: bytes, headers: Headers) -> int:
    """Return the Content-Length of a request, or 0.

    Raise `RequestRejected` if the end or the target of the request can be read in more than one way.
    """
    if version not in ("1.1", "1.0"):
        raise RequestRejected(505, f"HTTP/{version} is not supported; use HTTP/1.1")
    if method == b"CONNECT":
        raise RequestRejected(501, "CONNECT is not supported: this server is not a proxy")
    if httptools.parse_url(url).path is None:
        raise RequestRejected(400, "the request's URL has no path")
    _check_encoding(version, _values(headers, b"transfer-encoding"))
    hosts = len(_values(headers, b"host"))
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise RequestRejected(400, f"a request needs exactly one Host header; this one has {hosts}")
    return next(map(int, _values(headers, b"content-length")), 0)


def without_upgrade(parser: httptools.HttpRequestParser, url: bytes, headers: Headers) -> bytes:
    """Return the head of a request without the upgrade that it offers (RFC 9110, 7.8).

    After such a head, the parser treats the data as another protocol. Java's client, however, sends an
    ordinary body.
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
        raise RequestRejected(400, "HTTP/1.0 has no Transfer-Encoding")
    if [encoding.lower() for encoding in encodings] != [b"chunked"]:
        raise RequestRejected(501, "the only supported Transfer-Encoding is chunked, by itself")


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]
