"""The public API, type-checked from a plugin."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.distributions import importable
from support.paths import ROOT

from fllm import PluginConfig
from fllm.plugins.loader import load_plugins

HERE = Path(__file__).parent


def mypy(file: Path) -> dict[int, str]:
    """Return the message of each error by its line."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    found = re.findall(rf"{file.name}:(\d+): error: (.*)", done.stdout)
    assert done.returncode == bool(found), done.stdout + done.stderr
    return {int(line): message for line, message in found}


def pyright(file: Path) -> dict[int, str]:
    """Return the message of each error by its line."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    errors = [each for each in report["generalDiagnostics"] if each["severity"] == "error"]
    return {each["range"]["start"]["line"] + 1: each["message"] for each in errors}


def marked(file: Path) -> set[int]:
    lines = file.read_text().splitlines()
    return {number for number, line in enumerate(lines, start=1) if line.endswith("# mistake")}


@pytest.mark.parametrize("check", [mypy, pyright])
def test_a_correct_plugin_has_no_type_errors(check: Callable[[Path], dict[int, str]]) -> None:
    assert check(HERE / "author.py") == {}


@pytest.mark.parametrize("check", [mypy, pyright])
def test_each_mistake_is_reported(check: Callable[[Path], dict[int, str]]) -> None:
    file = HERE / "mistakes.py"
    found = check(file)
    assert set(found) == marked(file), found


def test_the_correct_plugin_loads() -> None:
    with importable(HERE):
        report = load_plugins(PluginConfig(paths=(str(HERE / "author.py"),))).reports[-1]
    assert report.error is None
    assert report.offers == {"backend": ["echo"], "tool-call parser": ["shout"]}
