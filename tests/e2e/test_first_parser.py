"""Every command, file and output of docs/your-first-parser.md, run in a new environment."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.environments import create_environment, install
from support.paths import DOCS

from fllm.testing import Server, serving

pytestmark = pytest.mark.packaging

PAGE = (DOCS / "your-first-parser.md").read_text()
BLOCKS = re.findall(r"^```(sh|text|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TO_THE_INDEX = ("python -m pip install build twine", "python -m twine upload dist/*")
"""The only commands that are not run."""


class PageRunner:
    """Follows the steps of the page."""

    def __init__(self, home: Path, python: Path, stack: ExitStack) -> None:
        self.directory = home
        self.python = python
        self.output = ""
        self.server: Server | None = None
        self._stack = stack
        for name, module in (("furiosa-llm", "fllm_api"), ("pytest", "pytest")):
            script = python.with_name(name)
            script.write_text(f'#!/bin/sh\nexec {python} -m {module} "$@"\n')
            script.chmod(0o755)

    def write(self, text: str) -> None:
        """Write a block of Python to the file that its first line names."""
        name, _, code = text.partition("\n")
        file = self.directory / name.removeprefix("# ")
        file.write_text(code.replace("http://localhost:8000", self.server.url if self.server else ""))

    def run(self, line: str) -> None:
        """Run a command, unless it needs the network."""
        words = shlex.split(line)
        if line in TO_THE_INDEX:
            return
        if words[0] == "cd":
            self.directory /= words[1]
        elif words[:5] == ["python", "-m", "pip", "install", "--editable"]:
            install(self.python, "--editable", self.directory)
        elif words[:2] == ["furiosa-llm", "serve"]:
            self.server = self._stack.enter_context(serving(*words[2:]))
        elif words == ["python", "-m", "build"]:
            self._run(f"{line} --no-isolation")
        else:
            self._run(line)

    def _run(self, line: str) -> None:
        environment = {
            **os.environ,
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            "COLUMNS": "80",
            "PYTHONIOENCODING": "utf-8",
        }
        done = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            cwd=self.directory,
            timeout=300,
            env=environment,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        self.output = done.stdout


def normalized(text: str) -> str:
    """Remove what differs between runs: trailing spaces and seconds."""
    lines = [line.rstrip() for line in text.strip().splitlines()]
    return re.sub(r"in [\d.]+s", "in N s", "\n".join(lines))


def test_following_the_page_gives_a_working_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = create_environment(tmp_path / "environment")
    with ExitStack() as stack:
        runner = PageRunner(tmp_path, python, stack)
        monkeypatch.setattr(sys, "executable", str(python))
        for kind, text in BLOCKS:
            if kind == "python":
                runner.write(text)
            elif kind == "text":
                assert normalized(runner.output) == normalized(text)
            else:
                for line in text.splitlines():
                    runner.run(line)
    assert {file.suffix for file in (runner.directory / "dist").iterdir()} == {".whl", ".gz"}


def test_the_commands_that_are_not_run_are_on_the_page() -> None:
    commands = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    assert set(TO_THE_INDEX) < set(commands)
    assert len(commands) == 15
