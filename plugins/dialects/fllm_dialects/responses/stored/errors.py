"""Errors about what is stored, with OpenAI's status codes and messages."""

from __future__ import annotations

from litestar.exceptions import HTTPException

from fllm_dialects.responses.ids import shown


def not_found(kind: str, record_id: str, *, param: str | None = None) -> HTTPException:
    """Return the error for an id that is unknown, has expired, or belongs to another client."""
    code = f"{kind.lower()}_not_found" if param else None
    return HTTPException(
        status_code=404,
        detail=f"{kind} with id {shown(record_id)} not found.",
        extra={"param": param, "code": code},
    )


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> HTTPException:
    """Return the error for a request that is not possible in this state."""
    return HTTPException(status_code=400, detail=message, extra={"param": param, "code": code})
