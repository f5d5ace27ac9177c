"""One change of an environment at a time, also if the program that makes it outlives the command."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fllm.errors import ConfigError
from fllm.private_directory import open_directory
from fllm_api.cli.plugins.packages.environment import Environment
from fllm_api.cli.plugins.packages.journal import Journal
from fllm_api.data_dir import default_data_dir

LOCK = "lock"
ORPHAN_SECONDS = 30.0
"""How long a command waits for the installer of another one that was killed."""
_POLL_SECONDS = 0.1


def journal_directory(environment: Environment) -> Path | None:
    """Return the directory with the journal of an environment; ``None`` if the user has no home directory."""
    state = default_data_dir()
    key = hashlib.sha256(os.fsencode(environment.prefix)).hexdigest()[:16]
    return None if state is None else state / "plugins" / key


@contextmanager
def change_lock(environment: Environment) -> Iterator[tuple[Journal, int]]:
    """Hold the lock of an environment; give its journal and the descriptor of the lock.

    The descriptor is for the installer: if it outlives this process, the lock is held until it ends. Raise
    `ConfigError` if another command holds the lock.
    """
    directory = journal_directory(environment)
    if directory is None:
        raise ConfigError("there is no home directory for the journal of the change; set XDG_STATE_HOME")
    directory = open_directory(str(directory), "XDG_STATE_HOME:", parents=True)
    with (directory / LOCK).open("a+") as file:
        _acquire(file.fileno(), file.name)
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), f"{os.getpid()}".encode(), 0)
        yield Journal(directory, environment), file.fileno()


def _acquire(descriptor: int, name: str) -> None:
    deadline = time.monotonic() + ORPHAN_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = _owner(descriptor)
            if _is_alive(owner) or time.monotonic() > deadline:
                raise ConfigError(
                    f"another `furiosa-llm plugins` (process {owner}) changes this environment ({name}); "
                    "wait until it ends"
                ) from None
            time.sleep(_POLL_SECONDS)
        else:
            return


def _owner(descriptor: int) -> int:
    text = os.pread(descriptor, 20, 0).decode(errors="replace")
    return int(text) if text.isdecimal() else 0


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0) if process else None
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return bool(process)
