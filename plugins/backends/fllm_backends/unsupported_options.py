"""Options of the command line that a foreign engine has decided for itself."""

from __future__ import annotations

from collections.abc import Collection

from fllm import BackendConfig, ConfigError

_FLAGS = {"enable_prefix_caching": "--no-enable-prefix-caching"}
"""Where the flag that changes a field is not the field's name."""


def refuse_given(config: BackendConfig, fields: Collection[str], why: str) -> None:
    """Raise `ConfigError`, which says ``why``, for the first of these fields that was given."""
    untouched = BackendConfig(model=config.model)
    for name in fields:
        if getattr(config, name) != getattr(untouched, name):
            flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
            raise ConfigError(f"{flag}: {why}")
