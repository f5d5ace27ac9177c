"""Read data URLs (RFC 2397)."""

from __future__ import annotations

import base64
import binascii

from fllm.errors import RequestError

MAX_HEAD = 200
"""Maximum number of characters before the data."""


def read_data_url(url: str, *, max_bytes: int, param: str) -> bytes:
    """Return the data. Raise `RequestError` if it is not in base64, or has more than ``max_bytes`` bytes."""
    head, comma, _ = url[:MAX_HEAD].partition(",")
    kind, *settings = head.lower().removeprefix("data:").split(";")
    if not (comma and head[:5].lower() == "data:" and settings[-1:] == ["base64"]):
        raise RequestError("a data URL must have the form data:image/png;base64,...", param=param)
    if kind and not kind.startswith(("image/", "application/octet-stream")):
        raise RequestError(f"the data URL has the type {kind}, which is not that of an image", param=param)
    try:
        # Some clients break lines, and some leave the padding out. Bytes are much faster than text here.
        data = url[len(head) + 1 :].encode("ascii").translate(_URL_SAFE, b" \t\r\n=")
        if len(data) * 3 // 4 > max_bytes:
            raise RequestError(f"the image has more than {max_bytes} bytes", param=param)
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except UnicodeEncodeError:
        raise RequestError("the data URL is not valid base64", param=param) from None
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"the data URL is not valid base64: {error}", param=param) from None


_URL_SAFE = bytes.maketrans(b"-_", b"+/")
