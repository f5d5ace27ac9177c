"""Which server is measured, and how it is spoken to."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from fllm.errors import ConfigError


class Server(Struct, frozen=True):
    """An OpenAI-compatible server."""

    name: str
    url: str
    """With the path before ``/completions``, such as ``http://localhost:8000/v1``."""


class Manner(Struct, frozen=True, kw_only=True):
    """How all of the servers are spoken to."""

    chat: bool = False
    """Chat completions, instead of completions."""
    model: str | None = None
    """Without it, the first that each server lists."""
    api_key: str | None = None
    timeout: float = 600.0
    """Seconds for one request."""


def parse_server(text: str, name: str | None = None) -> Server:
    """``[NAME=]URL``; without a name it is ``name``, or else the host and port.

    ``/v1`` is added to a URL without a path. Raises `ConfigError`.
    """
    before, equals, after = text.partition("=")
    given, url = (before, after) if equals and "://" not in before else (name, text)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not _names_a_host(parts):
        raise ConfigError(f"{text!r} is not [NAME=]URL, such as http://localhost:8000")
    path = parts.path.rstrip("/") or "/v1"
    return Server(given or parts.netloc, f"{parts.scheme}://{parts.netloc}{path}")


def _names_a_host(parts: SplitResult) -> bool:
    try:
        return bool(parts.hostname and parts.hostname.encode("idna") and parts.port != 0)
    except ValueError:
        return False
