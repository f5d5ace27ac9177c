"""The ``furiosa-llm`` command for tests: run to its end, or serving."""

from __future__ import annotations

import os
import subprocess
import sys

from fllm.engine_host.parent_death import ending_with
from fllm.testing import Server, serving

__all__ = ["Server", "children", "command", "run", "serving"]


def children(server: Server) -> list[int]:
    """Return the process ids of a server's children, such as its engine."""
    with open(f"/proc/{server.process.pid}/task/{server.process.pid}/children") as file:
        return [int(pid) for pid in file.read().split()]


def command(*arguments: str) -> list[str]:
    """Return the command line of ``furiosa-llm`` in this environment; it dies with this process."""
    return ending_with(os.getpid(), [sys.executable, "-m", "fllm_api", *arguments])


def run(*arguments: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``furiosa-llm`` to its end."""
    env = {**os.environ, **environment}
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, env=env)
