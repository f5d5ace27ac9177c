"""Which servers use a file: each holds a lock, which the system releases when its process ends."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

NEW_SECONDS = 3600.0


class ServerLock:
    """The lock of this server, in a file next to the store (``flock``, so a SIGKILL releases it, too)."""

    def __init__(self, store: Path) -> None:
        """Create the file and lock it. Raise `OSError`."""
        self.server = uuid4().hex
        """The id of this server."""
        self._store = store
        self._path = self._path_of(self.server)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._remove_old()

    def is_abandoned(self, server: str) -> bool:
        """Return whether the process of a server has ended. Its file is removed."""
        path = self._path_of(server)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            with suppress(OSError):
                path.unlink()
            return True
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Remove the file and end the lock."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)

    def _remove_old(self) -> None:
        """Remove the files of servers that were killed. A new one may not be locked yet."""
        for path in self._store.parent.glob(f"{self._store.name}-server-*"):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - NEW_SECONDS:
                    self.is_abandoned(path.name.rpartition("-")[2])

    def _path_of(self, server: str) -> Path:
        return self._store.with_name(f"{self._store.name}-server-{server}")
