"""``--data-dir``: the private directory for what the server stores."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from fllm.errors import ConfigError
from fllm.private_directory import load_secret, open_directory
from fllm_api.config import ServerConfig

OPTION = "--data-dir"

log = logging.getLogger("fllm.server")


def default_data_dir() -> Path | None:
    """Return the default: as the XDG Base Directory Specification says for the state of a program.

    It is ``None`` if the user has no home directory.
    """
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
    except RuntimeError:
        return None
    return state / "furiosa-llm"


class DataDir:
    """The directory, which is created when a plugin asks for it."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._opened: Path | None = None
        self._tried = False

    def open(self) -> Path | None:
        """Return the directory, or ``None`` if there is none, or if it can't be used, which is logged once.

        From then on, the owners of what requests store are the same after a restart.
        """
        if not self._tried:
            self._tried = True
            try:
                self._opened = self._open()
            except ConfigError as error:
                log.warning("what requests store is lost when the server stops: %s", error.message)
        return self._opened

    def _open(self) -> Path:
        if self._config.data_dir is None:
            raise ConfigError(f"there is no home directory; set {OPTION}")
        directory = open_directory(str(self._config.data_dir), OPTION, parents=True)
        self._config.keys.keep_owners(load_secret(str(directory), OPTION))
        return directory
