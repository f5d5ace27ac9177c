"""Forms in any division into chunks, and forms that are not valid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fllm import RequestError
from fllm_dialects.batches.form import MAX_FIELD_BYTES, MAX_PARTS, Form, read_form

CONTENT = b'{"custom_id": "a"}\r\n--x\r\n--\r\nbytes \xff\x00\r'


def part(name: str, value: bytes, filename: str | None = None, boundary: str = "B") -> bytes:
    extra = "" if filename is None else f'; filename="{filename}"'
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--B--\r\n"


UPLOAD = form(part("purpose", b"batch"), part("file", CONTENT, "in.jsonl"), part("x", b""))
TYPE = "multipart/form-data; boundary=B"


def read(body: bytes, content_type: str = TYPE, size: int = 1 << 20) -> tuple[Form, bytes]:
    written = bytearray()

    async def write(data: bytes) -> None:
        written.extend(data)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]
        yield b""

    return asyncio.run(read_form(content_type, chunks(), write)), bytes(written)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_any_division_of_a_form_gives_the_same_file_and_fields(size: int) -> None:
    result, written = read(UPLOAD, size=size)
    assert written == CONTENT
    assert (result.filename, result.fields) == ("in.jsonl", {"purpose": "batch", "x": ""})


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (UPLOAD, "application/json", "must be a form"),
        (UPLOAD, "", "must be a form"),
        (UPLOAD, "multipart/form-data", "must be a form"),
        (UPLOAD, f"multipart/form-data; boundary={'B' * 71}", "more than 70 characters"),
        (UPLOAD, "multipart/form-data; boundary=other", "not a valid form"),
        (b"", TYPE, "not a valid form"),
        (UPLOAD[:-9], TYPE, "not a valid form: unexpected end"),
        (UPLOAD + b"more" * 50_000, TYPE, "more than 65536 bytes outside of its file"),
        (b"preamble" * 50_000 + b"\r\n" + UPLOAD, TYPE, "more than 65536 bytes outside of its file"),
        (form(part("purpose", b"batch")), TYPE, "has no file"),
        (form(part("file", b"")), TYPE, "has no filename"),
        (form(part("file", b"", "a"), part("file", b"", "b")), TYPE, "the part `file` twice"),
        (form(part("purpose", b"a"), part("purpose", b"b")), TYPE, "the part `purpose` twice"),
        (form(part("file", b"", "../etc/passwd")), TYPE, "without a path"),
        (form(part("file", b"", "..")), TYPE, "without a path"),
        (form(part("file", b"", "a\x00b")), TYPE, "control characters"),
        (form(part("file", b"", "a" * 300)), TYPE, "more than 255 characters"),
        (form(part("purpose", b"x" * (MAX_FIELD_BYTES + 1))), TYPE, "more than 1024 bytes"),
        (form(part("purpose", b"\xff")), TYPE, "not UTF-8"),
        (form(*[part(f"f{i}", b"") for i in range(MAX_PARTS + 1)]), TYPE, "maximum segment count"),
        (b"--B\r\n" + b"X-A: b\r\n" * 20, TYPE, "header count"),
        (b"--B\r\nX-A: " + b"b" * 10_000, TYPE, "header length"),
        (b"--B\r\nContent-Disposition: attachment\r\n\r\n", TYPE, "Wrong type"),
        (b"--B\r\n\r\nx\r\n--B--\r\n", TYPE, "missing Content-Disposition"),
        (b"\x00" * 5000, TYPE, "not a valid form: unexpected end"),
    ],
)
def test_what_is_no_valid_form_is_refused(body: bytes, content_type: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read(body, content_type)
