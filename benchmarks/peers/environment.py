"""A peer's own virtual environment, and the processes that run in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from .peer import Unavailable

if TYPE_CHECKING:
    from torch import Tensor

PACKAGES_FILE = "packages.json"
LOG_LINES = 20
SCRIPTS = Path(__file__).parents[1]
"""Where ``peers`` is importable from."""


class Environment:
    """A virtual environment with packages from PyPI."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / "bin" / "python"

    def install(
        self, packages: Sequence[str], variables: Mapping[str, str] | None = None, *, with_uv: bool = False
    ) -> bool:
        """Install packages unless the same ones are there; return whether it was necessary.

        uv finds the versions of many packages in seconds, pip in minutes or hours. Raise `Unavailable` with
        the last line of what they print.
        """
        wanted, done = json.dumps([*packages]), self.directory / PACKAGES_FILE
        if done.exists() and done.read_text() == wanted:
            return False
        venv.create(self.directory, with_pip=True, clear=True)
        command = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if with_uv:
            links = ["--find-links", found] if (found := os.environ.get("PIP_FIND_LINKS")) else []
            uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", self.python]
            command = [*uv, "--index-strategy", "unsafe-best-match", "--system-certs", *links]
        result = subprocess.run(
            [*command, *packages], env={**os.environ, **(variables or {})}, stderr=subprocess.PIPE, text=True
        )
        if result.returncode:
            raise Unavailable(f"installing {' '.join(packages)}: {_last_line(result.stderr)}")
        done.write_text(wanted)
        return True

    def remove(self, packages: Sequence[str]) -> None:
        """Remove packages, if they are there."""
        subprocess.run([self.python, "-m", "pip", "uninstall", "--quiet", "--yes", *packages], check=True)

    def version(self, distribution: str) -> str:
        """Return the version of an installed distribution."""
        code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
        return subprocess.run(
            [self.python, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()

    def packages(self) -> Path:
        """Return the directory of the installed packages."""
        return next(self.directory.glob("lib/python*/site-packages"))

    def run(
        self,
        module: str,
        command: str,
        options: Mapping[str, Any],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Run a command of a module in `peers`, with options in JSON. Raise `Unavailable` if it fails."""
        arguments = [self.python, "-m", module, command, json.dumps(options)]
        result = subprocess.run(arguments, env=_variables(variables), capture_output=True, text=True)
        if result.returncode:
            raise Unavailable(f"{module} {command}: {_last_line(result.stderr)}")

    def start(
        self, module: str, options: Mapping[str, Any], log: Path, variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the server of a module in `peers`."""
        return start([self.python, "-m", module, "serve", json.dumps(options)], log, _variables(variables))

    def logits(
        self,
        module: str,
        options: Mapping[str, Any],
        windows: Sequence[Sequence[int]],
        directory: Path,
        variables: Mapping[str, str] | None = None,
    ) -> Iterator[Tensor]:
        """Yield the log-probabilities that a module in `peers` computes, [positions, vocabulary] a window."""
        import numpy as np
        import torch
        from llama_logits import scored

        positions = scored(len(windows[0]))
        with TemporaryDirectory(dir=directory) as folder:
            texts, output = Path(folder, "windows.json"), Path(folder, "logits.npy")
            texts.write_text(json.dumps([[*window] for window in windows]))
            place = {
                "windows": str(texts),
                "output": str(output),
                "positions": [positions.start, positions.stop],
            }
            self.run(module, "logits", {**options, **place}, variables)
            for rows in np.load(output, mmap_mode="r"):
                yield torch.from_numpy(rows.copy()).log_softmax(-1)


def start(
    command: Sequence[str | Path], log: Path, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server in a process group of its own; its output goes to a file."""
    environment = {**os.environ, **(variables or {})}
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


def stop(process: subprocess.Popen[bytes], seconds: float = 20.0) -> None:
    """End a server and all its processes; kill what is left after some seconds."""
    for sign in (signal.SIGCONT, signal.SIGTERM):
        _signal_group(process, sign)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], sign: signal.Signals) -> None:
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        return


def answers(port: int, path: str = "/health") -> bool:
    """Return whether a server on localhost answers a path with 200."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, HTTPException):
        return False


def _variables(more: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment of a process that imports `peers`."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "VIRTUAL_ENV")}
    return {**kept, "PYTHONPATH": str(SCRIPTS), **(more or {})}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
