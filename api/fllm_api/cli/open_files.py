"""The limit of open files, which includes connections."""

from __future__ import annotations

import resource

from fllm.errors import ConfigError

MIN_OPEN_FILES = 128
"""Open files with which a server starts; the engine and its plugins have up to a hundred."""


def raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard limit; raise `ConfigError` if that is too low."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard_limit != resource.RLIM_INFINITY and hard_limit < MIN_OPEN_FILES:
        raise ConfigError(
            f"the limit of {hard_limit} open files is too low: {MIN_OPEN_FILES} are needed, and one for each "
            "connection; raise it, for example with ulimit -n 65536"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
