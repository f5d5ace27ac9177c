"""Where metrics go, as the environment says it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from fllm import ConfigError


class Settings(Struct, frozen=True, kw_only=True):
    """``STATSD_HOST``, ``STATSD_PORT`` and ``STATSD_PREFIX``: the names that other StatsD clients read."""

    host: str = "localhost"
    port: int = 8125
    prefix: str = "fllm"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Raises `ConfigError` for a port that is none."""
    port = environment.get("STATSD_PORT", str(Settings().port))
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        raise ConfigError(f"STATSD_PORT={port!r} is no port")
    return Settings(
        host=environment.get("STATSD_HOST", Settings().host),
        port=int(port),
        prefix=environment.get("STATSD_PREFIX", Settings().prefix),
    )
