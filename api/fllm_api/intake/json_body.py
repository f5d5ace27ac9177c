"""Decode request bodies as strict JSON into the type that the handler declares."""

from __future__ import annotations

import gc
import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import HTTPException, InternalServerException
from litestar.utils.scope.state import ScopeState

from fllm.errors import RequestError
from fllm_api.lifecycle.client_disconnect import ClientDisconnected
from fllm_api.limits.body_memory import MAX_JSON_VALUES
from fllm_api.request_context import context_of

_PATH = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(\w+)`")
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF_PAIR = re.compile(rb"%b(?!%b)|(?<!%b)%b" % (_HIGH, _LOW, _HIGH, _LOW))
"""Half of a character that UTF-16 divides in two, such as an emoji: msgspec calls such a text truncated."""

LARGE_BODY_BYTES = 256 * 1024
"""Size of a body that may be many thousands of objects."""


class ApiRequest(Request[Any, Any, State]):
    """A request whose JSON is decoded strictly: ``"5"`` is not a number. Litestar by default converts it."""

    async def stream(self) -> AsyncGenerator[bytes]:
        """Yield the pieces of the body as they arrive. Raise `ClientDisconnected` if they do not."""
        try:
            async for piece in super().stream():
                yield piece
        except InternalServerException as error:  # Litestar's, which would be a failure of the server
            raise ClientDisconnected from error

    async def json(self) -> Any:
        """Return the body as the type of the handler's ``data``.

        Raise `RequestError` with the path of the invalid field.
        """
        body = await self.body()
        await context_of(self.scope).body.decode(body, MAX_JSON_VALUES)
        kind = _struct_type(self)
        if kind is None:
            return await super().json()  # a plugin's handler, which may use any type that Litestar supports
        return decode_body(body, kind)

    def discard_body(self) -> None:
        """Free the memory of the body, whose content is not used any more."""
        self._body = ScopeState.from_scope(self.scope).body = b""
        context_of(self.scope).body.discard()


def _struct_type(request: Request[Any, Any, Any]) -> Any | None:
    """Return the type of the handler's ``data`` if it is a Struct."""
    field = request.route_handler.parsed_data_field
    return field.annotation if field is not None and field.is_subclass_of(msgspec.Struct) else None


async def require_json(request: Request[Any, Any, Any]) -> None:
    """Reject a body that is not JSON (415) or is empty (400), if the handler decodes it as a Struct."""
    if _struct_type(request) is None:
        return
    kind, _ = request.content_type
    any_type = request.route_handler.opt.get("any_content_type") and "origin" not in request.headers
    if not any_type and kind != "application/json" and not kind.endswith("+json"):
        raise HTTPException(
            status_code=415, detail="the body must be JSON, with Content-Type: application/json"
        )
    if charset := _unsupported_charset(request):
        raise HTTPException(
            status_code=415, detail=f"the charset of Content-Type is {charset!r}; JSON must be UTF-8"
        )
    if (coding := request.headers.get("content-encoding", "identity")) != "identity":
        raise HTTPException(
            status_code=415,
            detail=f"Content-Encoding {coding!r} is not supported; send the body uncompressed",
        )
    if not await request.body():
        raise RequestError("the body is empty; it must be a JSON object")


def _unsupported_charset(request: Request[Any, Any, Any]) -> str | None:
    _, options = request.content_type
    charset = options.get("charset", "utf-8")
    return None if charset.lower() in ("utf-8", "utf8", "us-ascii") else charset


def decode_body(body: bytes, expected_type: Any) -> Any:
    """Decode JSON strictly. Raise `RequestError` if the body is invalid."""
    if len(body) > LARGE_BODY_BYTES:  # the objects are all new, and looking for garbage doubles the time
        gc.disable()
    try:
        return msgspec.json.decode(body, type=expected_type)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: {error.reason}") from error
    except msgspec.DecodeError as error:
        half = _HALF_PAIR.search(body)
        reason = f"a text has half of a surrogate pair, {half[0].decode()}" if half else str(error)
        raise RequestError(f"the body is not valid JSON: {reason}") from error
    except RecursionError as error:
        raise RequestError("the body is nested too deeply") from error
    finally:
        gc.enable()


def _invalid(text: str) -> RequestError:
    """Split msgspec's ``what - at `$.path` `` into a message and OpenAI's ``param``."""
    match = _PATH.match(text)
    assert match is not None
    what, path = match["what"], (match["path"] or "").removeprefix(".")
    if missing := _MISSING.search(what):
        path = f"{path}.{missing[1]}".removeprefix(".")
    where = f"`{path}`: " if path else ""
    return RequestError(f"{where}{'key: ' if match['key'] else ''}{what}", param=path or None)
