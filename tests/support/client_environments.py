"""Environments with the clients of other projects, installed once and kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "furiosa-llm" / "test-clients"
PYPI = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple/")
NPM = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org/")
INSTALL_SECONDS = 600
NOT_FOUND = ("No matching distribution found for", "npm error code E404", "npm error code ETARGET")
"""What installers print if the registry does not have a package."""


def python_environment(requirements: Path) -> Path:
    """Return the interpreter of an environment with exactly these packages."""

    def build(directory: Path) -> None:
        venv.create(directory, symlinks=True)
        pip = (sys.executable, "-m", "pip", "--python", directory / "bin" / "python")
        options = ("--quiet", "--no-deps", "--no-compile", "--only-binary", ":all:")
        _install([*pip, "install", *options, "--requirement", requirements], directory, PYPI)

    return _cached(requirements.stem, [requirements], sys.version, build) / "bin" / "python"


def node_environment(project: Path) -> Path:
    """Return a directory with the ``node_modules`` of the project."""
    if shutil.which("npm") is None:
        assert not os.environ.get("FLLM_CI"), "npm is not installed"
        pytest.skip("npm is not installed")
    files = sorted(project.glob("package*.json"))

    def build(directory: Path) -> None:
        for file in files:
            shutil.copy(file, directory)
        _install(["npm", "install", "--no-audit", "--no-fund"], directory, NPM)

    return _cached(project.name, files, "", build)


def node_program(project: Path, name: str) -> Path:
    """Return a program of the project's packages. Skip the test if it does not run on this machine."""
    directory = node_environment(project)
    program = directory / "node_modules" / ".bin" / name
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    done = subprocess.run([program, "--version"], capture_output=True, text=True, env=environment)
    if done.returncode:
        pytest.skip(f"{name} does not run here: {done.stderr}")
    return program


def _cached(name: str, files: Sequence[Path], version: str, build: Callable[[Path], None]) -> Path:
    """Return the directory that ``build`` makes of these files; build it if it is not in the cache."""
    content = version.encode() + b"".join(file.read_bytes() for file in files)
    directory = CACHE / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    complete = directory / "complete"
    with _locked(directory.with_suffix(".lock")):
        if not complete.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            build(directory)
            complete.touch()
    return directory


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(command: Sequence[str | Path], directory: Path, registry: str) -> None:
    """Run an installer. Skip the test if the registry is out of reach, or does not have a package."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, cwd=directory)
    if done.returncode:
        if any(text in done.stderr for text in NOT_FOUND):
            pytest.skip(f"{registry} does not have a package: {done.stderr}")
        try:
            httpx.head(registry, timeout=10, follow_redirects=True)
        except httpx.HTTPError as error:
            pytest.skip(f"{registry} is out of reach: {error}")
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
