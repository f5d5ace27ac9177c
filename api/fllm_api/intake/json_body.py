"""The body of a request: strict JSON into the very type that the handler wants."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from fllm.errors import RequestError

_PATH = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(\w+)`")

MAX_JSON_VALUES = 2**20
"""As objects they take fifty times the room of their text, and nothing else runs while they are made."""


class ApiRequest(Request[Any, Any, State]):
    """Decodes strictly: ``"5"`` is no number. Litestar by itself would convert it."""

    async def json(self) -> Any:
        """The body as the type of the handler's ``data``; raises `RequestError` with the fault's path."""
        field = self.route_handler.parsed_data_field
        if field is None or not field.is_subclass_of(msgspec.Struct):
            return await super().json()  # a plugin's handler, which may want whatever Litestar knows
        return decode(await self.body(), field.annotation)


async def require_json(request: Request[Any, Any, Any]) -> None:
    """Before a POST is read: 415 for other types, 400 for nothing at all."""
    kind, _ = request.content_type
    if kind != "application/json" and not kind.endswith("+json"):
        raise HTTPException(
            status_code=415, detail="the body must be JSON, with Content-Type: application/json"
        )
    if charset := _unsupported_charset(request):
        raise HTTPException(status_code=415, detail=f"JSON is UTF-8; the body is said to be {charset!r}")
    if (coding := request.headers.get("content-encoding", "identity")) != "identity":
        raise HTTPException(status_code=415, detail=f"the body must not be encoded; it is {coding!r}")
    if not await request.body():
        raise RequestError("the body is empty; it must be a JSON object")


def _unsupported_charset(request: Request[Any, Any, Any]) -> str | None:
    _, options = request.content_type
    charset = options.get("charset", "utf-8")
    return None if charset.lower() in ("utf-8", "utf8", "us-ascii") else charset


def decode(body: bytes, wanted: Any) -> Any:
    """Decode JSON strictly; raises `RequestError`."""
    if len(body) > MAX_JSON_VALUES and (values := sum(map(body.count, b"{[,"))) > MAX_JSON_VALUES:
        raise RequestError(f"the body has about {values} values; it may have {MAX_JSON_VALUES}")
    try:
        return msgspec.json.decode(body, type=wanted)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: {error.reason}") from error
    except msgspec.DecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise RequestError("the body is nested too deeply") from error


def _invalid(text: str) -> RequestError:
    """msgspec's ``what - at `$.path` `` as message and OpenAI's ``param``."""
    match = _PATH.match(text)
    assert match is not None
    what, path = match["what"], (match["path"] or "").removeprefix(".")
    if missing := _MISSING.search(what):
        path = f"{path}.{missing[1]}".removeprefix(".")
    where = f"`{path}`: " if path else ""
    return RequestError(f"{where}{'key: ' if match['key'] else ''}{what}", param=path or None)
