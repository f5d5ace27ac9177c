"""Reject command-line options that do not apply to an external engine."""

from __future__ import annotations

from collections.abc import Collection

from fllm import BackendConfig, ConfigError

_FLAGS = {"enable_prefix_caching": "--no-enable-prefix-caching"}
"""Command-line flags whose name differs from the field that they set."""


def reject_unsupported_options(config: BackendConfig, fields: Collection[str], reason: str) -> None:
    """Raise `ConfigError` with ``reason`` for the first of ``fields`` that differs from its default."""
    defaults = BackendConfig(model=config.model)
    for name in fields:
        if getattr(config, name) != getattr(defaults, name):
            flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
            raise ConfigError(f"{flag}: {reason}")
