"""Read the limits of clients and of request bodies from the options of ``furiosa-llm serve``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fllm.errors import ConfigError
from fllm_api.config import RateLimits

DEFAULT_BODIES = 8
"""Bodies of maximum size that fit into the default memory for bodies; half of it is for decoded text."""
MIN_BODY_MEMORY = 512 * 1024 * 1024
"""Default memory for all bodies, unless bodies may be so large that `DEFAULT_BODIES` of them need more."""


def client_limits(pairs: Iterable[tuple[str, str]]) -> dict[str, RateLimits]:
    """Return the limits of all clients by the name "", and those of owners that have their own by theirs."""
    values: dict[str, dict[str, str]] = {"": {}}
    for key, value in pairs:
        owner, _, name = key.rpartition(".")
        values.setdefault(owner, {})[name] = value
    return {owner: _limits(owner, values[""] | own) for owner, own in values.items()}


def _limits(owner: str, values: dict[str, str]) -> RateLimits:
    try:
        return msgspec.convert(values, RateLimits, strict=False)
    except msgspec.ValidationError as error:
        option = f"--limit {owner}..." if owner else "--limit"
        known = ", ".join(RateLimits.__struct_encode_fields__)
        raise ConfigError(f"{option}: {error}; known: {known}, and OWNER.{known.split(', ')[0]}") from error


def check_owners(owners: Iterable[str], options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if there is no file that could name an owner."""
    if (owner := next(iter(owners), None)) and options["api_key_file"] is None:
        raise ConfigError(f"--limit {owner}...: only --api-key-file names owners of keys")


def max_body_memory(requested: int | None, max_body_bytes: int) -> int:
    """Return the memory for all bodies. Raise `ConfigError` if the largest body would not fit."""
    if requested is not None and requested < 2 * max_body_bytes:
        raise ConfigError(
            f"--max-body-memory {requested} is less than twice --max-body-bytes {max_body_bytes}: "
            "a body needs memory for its bytes and for its decoded text"
        )
    return requested or max(MIN_BODY_MEMORY, DEFAULT_BODIES * max_body_bytes)
