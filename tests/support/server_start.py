"""Servers that must not start: with which one line they end."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.http_server import run

PLAIN = ("--quantization", "none")
"""Without kernels, which a first start would compile."""
LIMIT = 120.0
"""Seconds; generous."""


def refused(*arguments: str | Path, **environment: str) -> str:
    """The one line of a server that can't start, and why."""
    done = run("serve", *map(str, arguments), "--port", "0", *PLAIN, timeout=LIMIT, **environment)
    return one_line(done)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that was refused; ahead of it only tells of its progress."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    *before, last = done.stderr.splitlines()
    assert "error: " in last, done.stderr
    assert not [line for line in before if "rror" in line or "Traceback" in line], done.stderr
    return last.partition("error: ")[2]
