"""Options of the plugin ``responses``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from fllm.byte_sizes import parse_size
from fllm.errors import ConfigError
from fllm_dialects.store_keys import parse_key, read_key

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


class ResponsesOptions(Struct, frozen=True, kw_only=True):
    """What is stored, for how long and how."""

    store: Annotated[bool, Meta(description="whether responses and conversations can be stored")] = True
    store_ttl: Annotated[
        str, Meta(description="how long what is stored is kept after its last use, such as 12h or 30d")
    ] = "30d"
    store_size: Annotated[
        str, Meta(description="maximum size of all that is stored; the oldest is deleted first")
    ] = "1GiB"
    store_key_file: Annotated[
        str, Meta(description="file with the key that encrypts what is stored; see `openssl rand -hex 32`")
    ] = ""
    store_key: Annotated[
        str, Meta(description="the key itself, for an environment variable", extra={"secret": True})
    ] = ""
    max_background: Annotated[
        int,
        Meta(
            ge=1, description="maximum number of responses that a client generates in the background at once"
        ),
    ] = 16

    def __post_init__(self) -> None:
        """Raise `ValueError` if a value is invalid."""
        for name, parse in (("store_ttl", _seconds), ("store_size", parse_size)):
            try:
                parse(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}={getattr(self, name)!r}: {error}") from error
        if self.store_key and self.store_key_file:
            raise ValueError("store_key and store_key_file exclude each other")
        try:
            self.read_key()
        except ConfigError as error:
            raise ValueError(error.message) from error

    def read_key(self) -> bytes | None:
        """Return the key of the store, if it has one. Raise `ConfigError`."""
        if self.store_key:
            return parse_key(self.store_key, where="store_key")
        return read_key(Path(self.store_key_file)) if self.store_key_file else None

    @property
    def ttl_seconds(self) -> float:
        """`store_ttl` in seconds."""
        return _seconds(self.store_ttl)

    @property
    def size_bytes(self) -> int:
        """`store_size` in bytes."""
        return parse_size(self.store_size)


def _seconds(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in _SECONDS or not number.isdecimal() or int(number) < 1:
        raise ValueError("expected a number of seconds, minutes, hours or days, such as 90s, 30m, 12h or 30d")
    return float(int(number) * _SECONDS[unit])
