"""Servers that must fail to start, and their error messages."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.http_server import run

UNQUANTIZED = ("--quantization", "none")
"""Options without compiled kernels, which a first start would compile."""
START_TIMEOUT = 120.0
"""Generous timeout in seconds."""


def start_error(*arguments: str | Path, **environment: str) -> str:
    """Start a server that must fail; return its error message."""
    done = run(
        "serve", *map(str, arguments), "--port", "0", *UNQUANTIZED, timeout=START_TIMEOUT, **environment
    )
    return error_line(done)


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the message of a command that failed with status 2; only progress may precede it."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    *before, last = done.stderr.splitlines()
    assert "error: " in last, done.stderr
    assert not [line for line in before if "rror" in line or "Traceback" in line], done.stderr
    return last.partition("error: ")[2]
