"""Start programs that are killed when the process that started them dies."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# PR_SET_PDEATHSIG (1) outlives execve. A parent that died before the call is noticed by its number.
_GUARD = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def ending_with(parent: int, command: Sequence[str]) -> list[str]:
    """Return a command line that runs ``command`` and is killed (SIGKILL) when process ``parent`` dies.

    ``parent`` must be the process that starts it. Elsewhere than on Linux the command is returned as it is.
    """
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _GUARD, str(parent), *command]
