"""Read the lines of an input file, and check all of them before the first one runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec
from msgspec import Struct

from fllm_dialects.batches.protocol import BatchError, InputLine, LineBody

MAX_ERRORS = 100
"""Errors after which the check of a file stops."""
LINES_AT_ONCE = 64
PAUSE = 0.001
"""Seconds that the check sleeps after some lines, so that the event loop does not wait for its thread."""
BOM = b"\xef\xbb\xbf"


class InputChecks(Struct, frozen=True, kw_only=True):
    """What holds for the input file of a batch."""

    endpoint: str
    max_lines: int
    max_line_bytes: int


class CheckedInput(Struct):
    """The result of the check: the number of requests, or errors."""

    total: int = 0
    errors: list[BatchError] = []


def read_lines(path: Path, max_line_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield the number of each line that is not blank, from 1, and its text; `None` if it is too long.

    Raise `OSError`.
    """
    with path.open("rb") as file:
        number = 0
        most = max_line_bytes + len(b"\r\n")
        while line := file.readline(most):
            number += 1
            if number == 1:
                line = line.removeprefix(BOM)
            is_whole = line.endswith(b"\n") or len(line) < most
            if not is_whole or len(line.rstrip(b"\r\n")) > max_line_bytes:
                while line and not line.endswith(b"\n"):
                    line = file.readline(most)
                yield number, None
            elif line := line.strip():
                yield number, line


def check_input(path: Path, checks: InputChecks) -> CheckedInput:
    """Return the number of requests of a file, or what is wrong with it. Run this in a thread.

    Raise `OSError`.
    """
    result = CheckedInput()
    seen: dict[bytes, int] = {}
    for number, text in read_lines(path, checks.max_line_bytes):
        result.total += 1
        if result.total > checks.max_lines:
            message = f"the file has more than {checks.max_lines} requests"
            result.errors.append(BatchError(code="too_many_requests", message=message))
            break
        if error := _line_error(number, text, checks, seen):
            result.errors.append(error)
            if len(result.errors) == MAX_ERRORS:
                message = f"the check stopped after {MAX_ERRORS} errors"
                result.errors.append(BatchError(code="too_many_errors", message=message))
                break
        if result.total % LINES_AT_ONCE == 0:
            time.sleep(PAUSE)
    if not result.total:
        result.errors.append(BatchError(code="empty_file", message="the file has no requests"))
    return result


def _line_error(
    number: int, text: bytes | None, checks: InputChecks, seen: dict[bytes, int]
) -> BatchError | None:
    """Return what is wrong with a line. ``seen`` has the lines of the ids so far, by their hashes."""

    def error(code: str, message: str, param: str | None = None) -> BatchError:
        return BatchError(code=code, line=number, message=message, param=param)

    if text is None:
        return error("line_too_long", f"the line has more than {checks.max_line_bytes} bytes")
    try:
        line = decode_line(text)
    except msgspec.ValidationError as invalid:
        return error("invalid_request", f"the line is not a request of a batch: {invalid}", _param(invalid))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return error("invalid_json_line", "the line is not valid JSON")
    key = blake2b(line.custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if (first := seen.setdefault(key, number)) != number:
        return error("duplicate_custom_id", f"line {first} has the same custom_id", "custom_id")
    if line.method != "POST":
        return error("invalid_method", "the method must be POST", "method")
    if line.url != checks.endpoint:
        message = f"the url must be the endpoint of the batch, {checks.endpoint}"
        return error("invalid_url", message, "url")
    try:
        body = msgspec.json.decode(line.body, type=LineBody)
    except msgspec.ValidationError:
        return error("invalid_request", "the body must be an object", "body")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # its values were not decoded before
        return error("invalid_json_line", "the line is not valid JSON")
    for field in ("stream", "background"):
        if getattr(body, field) not in (None, False):
            return error("invalid_request", f"a request of a batch can't have `{field}`", f"body.{field}")
    return None


def decode_line(text: bytes) -> InputLine:
    """Return a request. Raise `msgspec.DecodeError`, `UnicodeDecodeError` or `RecursionError`."""
    return msgspec.json.decode(text, type=InputLine)


def _param(error: msgspec.ValidationError) -> str | None:
    """Return the field of msgspec's ``what - at `$.path` ``, or the missing one."""
    text = str(error)
    if "missing required field `" in text:
        return text.split("`")[1]
    return text.rpartition("`$.")[2].rstrip("`") if "`$." in text else None
