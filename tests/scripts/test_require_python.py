"""``make`` checks the version of Python before it installs anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT


def require_python(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([ROOT / "scripts/require-python", *arguments], capture_output=True, text=True)
    return done.returncode, done.stderr


def interpreter(directory: Path, version: str) -> str:
    """Return a program that reports this version of Python."""
    file = directory / "python3"
    file.write_text(f"#!/bin/sh\necho {version}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize("version", ["2.7", "3.9", "3.10"])
def test_an_older_python_is_refused_in_one_line(version: str, tmp_path: Path) -> None:
    python = interpreter(tmp_path, version)
    assert require_python(python, "serve") == (
        1,
        f"Python 3.11 or newer is needed, {python} is {version}: `make serve PYTHON=python3.12`\n",
    )


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.14"])
def test_newer_ones_are_accepted(version: str, tmp_path: Path) -> None:
    assert require_python(interpreter(tmp_path, version)) == (0, "")


def test_this_python_is_accepted() -> None:
    assert require_python(sys.executable) == (0, "")


def test_a_missing_interpreter_is_named() -> None:
    assert require_python("python3.99", "test") == (
        1,
        "Python 3.11 or newer is needed, python3.99 can't be run: `make test PYTHON=python3.12`\n",
    )


def test_make_says_so_before_it_installs(tmp_path: Path) -> None:
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        ["make", "-C", tmp_path, "serve", f"PYTHON={interpreter(tmp_path, '3.10')}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Python 3.11 or newer is needed, ")
    assert "Installing" not in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_help_lists_the_targets() -> None:
    shown = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True).stdout
    assert "PYTHON=" in shown
    assert {"serve", "test", "check", "clean"} <= {
        line.split()[0] for line in shown.splitlines() if line.strip()
    }
