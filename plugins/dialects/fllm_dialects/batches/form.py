"""Read a form (`multipart/form-data`, RFC 7578) as it arrives: the file goes to disk, never into memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from msgspec import Struct
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from fllm import RequestError

MAX_PARTS = 16
MAX_FIELD_BYTES = 1024
"""Maximum size of a field that is not the file."""
MAX_BOUNDARY = 70
"""Characters of a boundary (RFC 2046, 5.1.1)."""
MAX_FILENAME = 255
FORM_BYTES = 64 * 1024
"""Maximum size of a form without the content of its file."""


class Form(Struct):
    """The fields of a form. The content of its file went elsewhere."""

    filename: str | None = None
    fields: dict[str, str] = {}


async def read_form(
    content_type: str, stream: AsyncIterator[bytes], write: Callable[[bytes], Awaitable[None]]
) -> Form:
    """Return the fields of a form, and pass the content of its part ``file`` to ``write``.

    Raise `RequestError` if it is invalid. What ``write`` raises is passed on.
    """
    form = Form()
    name, field = "", bytearray()
    overhead = 0
    try:
        # Not strict: then a line break after the last boundary is an error if it arrives alone.
        with PushMultipartParser(_boundary(content_type), max_segment_count=MAX_PARTS) as parser:
            async for chunk in stream:
                overhead += len(chunk)
                for event in parser.parse(chunk) if chunk else ():
                    if isinstance(event, MultipartSegment):
                        name, field = _begin_part(form, event), bytearray()
                    elif event is None:
                        _end_field(form, name, field)
                    elif name == "file":
                        overhead -= len(event)
                        await write(event)
                    else:
                        field += event
                        _check_field(name, field)
                if overhead > FORM_BYTES:
                    raise RequestError(f"the form has more than {FORM_BYTES} bytes outside of its file")
    except MultipartError as error:
        raise RequestError(f"the body is not a valid form: {_reason(error)}") from error
    if form.filename is None:
        raise RequestError("the form has no file: send a part named `file` with a filename", param="file")
    return form


def _boundary(content_type: str) -> str:
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not boundary:
        raise RequestError("the body must be a form: Content-Type: multipart/form-data with a boundary")
    if len(boundary) > MAX_BOUNDARY or not boundary.isascii():
        raise RequestError(f"the boundary of the form has more than {MAX_BOUNDARY} characters, or wrong ones")
    return str(boundary)


def _begin_part(form: Form, segment: Any) -> str:
    """Return the name of a part; raise `RequestError` if the form may not have it."""
    name = str(segment.name)
    if name in form.fields or (name == "file" and form.filename is not None):
        raise RequestError(f"the form has the part `{name[:64]}` twice", param=name[:64])
    if name == "file":
        form.filename = _checked_filename(segment.filename)
    return name


def _checked_filename(name: str | None) -> str:
    """Return a name without a path. Raise `RequestError`: what it is meant to do is unknown."""
    if not name:
        raise RequestError("the part `file` has no filename", param="file")
    if name in (".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise RequestError("the filename must be a name without a path or control characters", param="file")
    if len(name) > MAX_FILENAME:
        raise RequestError(f"the filename has more than {MAX_FILENAME} characters", param="file")
    return name


def _check_field(name: str, field: bytearray) -> None:
    if len(field) > MAX_FIELD_BYTES:
        raise RequestError(f"the field `{name[:64]}` has more than {MAX_FIELD_BYTES} bytes", param=name[:64])


def _end_field(form: Form, name: str, field: bytearray) -> None:
    if name == "file":
        return
    try:
        form.fields[name] = field.decode()
    except UnicodeDecodeError:
        raise RequestError(f"the field `{name[:64]}` is not UTF-8", param=name[:64]) from None


def _reason(error: Exception) -> str:
    """Return the first argument of an error; others are objects of the library."""
    text = str(error.args[0]) if error.args else "unknown"
    return text[:1].lower() + text[1:]
