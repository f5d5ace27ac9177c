"""The fields of an upload, without its file."""

from __future__ import annotations

import msgspec

from fllm import RequestError
from fllm_dialects.batches.protocol import ExpiresAfter

PURPOSE = "batch"
"""The purpose of the files that clients upload."""
RESULT_PURPOSE = "batch_output"
"""The purpose of the files that batches write."""


def read_expiry(fields: dict[str, str]) -> int | None:
    """Return the seconds until a file expires, if its form names them, and check the other fields.

    The names are those of OpenAI: ``purpose``, ``expires_after[anchor]``. Raise `RequestError`.
    """
    purpose = fields.get("purpose")
    if purpose is None:
        raise RequestError(f"the form has no field `purpose`: send {PURPOSE!r}", param="purpose")
    if purpose != PURPOSE:
        raise RequestError(
            f"`purpose` is {purpose!r}; this server keeps files for batches only: send {PURPOSE!r}",
            param="purpose",
        )
    known = {"purpose", "expires_after[anchor]", "expires_after[seconds]"}
    for name in fields.keys() - known:
        raise RequestError(f"the field {name[:64]!r} is not known", param=name[:64])
    names = {name: f"expires_after[{name}]" for name in ("anchor", "seconds")}
    values = {name: fields[field] for name, field in names.items() if field in fields}
    if not values:
        return None
    try:
        return msgspec.convert(values, ExpiresAfter, strict=False).seconds
    except msgspec.ValidationError as error:
        raise RequestError(f"`expires_after`: {error}", param="expires_after") from error
