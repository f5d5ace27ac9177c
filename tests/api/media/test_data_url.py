"""Images as data URLs."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.errors import RequestError
from fllm_api.media.data_url import read_data_url

FILE = bytes(range(256))
ENCODED = base64.b64encode(FILE).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{ENCODED}",
        f"DATA:image/svg+xml;charset=utf-8;base64,{ENCODED}",
        f"data:;base64,{ENCODED}",
        f"data:application/octet-stream;base64,{ENCODED.rstrip('=')}",
        f"data:image/jpeg;base64,{base64.urlsafe_b64encode(FILE).decode()}",
        "data:image/jpeg;base64," + "\n".join(ENCODED[i : i + 76] for i in range(0, len(ENCODED), 76)),
    ],
)
def test_the_data_of_a_url(url: str) -> None:
    assert read_data_url(url, max_bytes=256, param="url") == FILE


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png,abc", "must have the form"),
        ("data:", "must have the form"),
        ("data:image/png;base64,a", "not valid base64"),
        ("data:image/png;base64,äöü", "not valid base64"),
        ("data:image/png;base64," + "QUJD" * 86, "more than 256 bytes"),
        ("data:text/html;base64,aGFsbG8=", "text/html, which is not that of an image"),
        ("data:" + "a" * 10_000_000, "must have the form"),
    ],
)
def test_an_invalid_url_is_rejected(url: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read_data_url(url, max_bytes=256, param="messages[0].content[1].image_url")
    assert caught.value.param == "messages[0].content[1].image_url"


@given(st.text())
def test_any_text_is_data_or_rejected(text: str) -> None:
    data = None
    with suppress(RequestError):
        data = read_data_url(f"data:image/png;base64,{text}", max_bytes=1000, param="url")
    assert data is None or len(data) <= len(text) * 3 // 4
