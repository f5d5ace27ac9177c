"""Read the address of the StatsD server from environment variables."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from fllm import ConfigError


class Settings(Struct, frozen=True, kw_only=True):
    """Values of ``STATSD_HOST``, ``STATSD_PORT`` and ``STATSD_PREFIX``, as in other StatsD clients."""

    host: str = "localhost"
    port: int = 8125
    prefix: str = "fllm"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings. Raise `ConfigError` if the port is invalid."""
    port = environment.get("STATSD_PORT", str(Settings().port))
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        raise ConfigError(f"STATSD_PORT={port!r} is not a port; set a number from 1 to 65535")
    return Settings(
        host=environment.get("STATSD_HOST", Settings().host),
        port=int(port),
        prefix=environment.get("STATSD_PREFIX", Settings().prefix),
    )
