"""The servers to measure, and the options of the requests that they receive."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from fllm.errors import ConfigError


class Target(Struct, frozen=True):
    """An OpenAI-compatible server."""

    name: str
    url: str
    """URL up to the path before ``/completions``, such as ``http://localhost:8000/v1``."""


class RequestOptions(Struct, frozen=True, kw_only=True):
    """Options of the requests, the same for all targets."""

    chat: bool = False
    """Whether to send chat completions instead of completions."""
    model: str | None = None
    """Model name; None for the first model that each server lists."""
    api_key: str | None = None
    timeout: float = 600.0
    """Seconds until a request counts as failed."""


def parse_target(text: str, name: str | None = None) -> Target:
    """Parse ``[NAME=]URL``; raise `ConfigError` if it is not one.

    The default name is ``name``, or else the URL's host and port. ``/v1`` is added to a URL without a path.
    """
    before, equals, after = text.partition("=")
    chosen_name, url = (before, after) if equals and "://" not in before else (name, text)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not _has_valid_host(parts):
        raise ConfigError(f"{text!r} is not [NAME=]URL, such as http://localhost:8000")
    path = parts.path.rstrip("/") or "/v1"
    address = parts.netloc.rpartition("@")[2]
    return Target(chosen_name or address, f"{parts.scheme}://{address}{path}")


def _has_valid_host(parts: SplitResult) -> bool:
    try:
        return bool(parts.hostname and parts.hostname.encode("idna") and parts.port != 0)
    except ValueError:
        return False
