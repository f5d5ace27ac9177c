"""SDKs built on OpenAI's API complete round trips of a tool call: a call, its result, a response.

The SDKs pin old versions of rich and jiter, and one installs a pytest plugin. Therefore they are installed in
a separate environment, where each runs its script in ``sdks``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from support.http_server import Server

SDKS = Path(__file__).with_name("sdks")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment with the SDKs."""
    directory: Path = tmp_path_factory.mktemp("sdks")
    venv.create(directory, symlinks=True)
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--only-binary", ":all:"]
    subprocess.run([*pip, "--requirement", SDKS / "requirements.txt"], check=True, timeout=600)
    return python


def trip(python: Path, script: str, server: Server) -> dict[str, Any]:
    done = subprocess.run(
        [python, SDKS / script, server.api], capture_output=True, text=True, timeout=300, cwd=python.parent
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_langchain(python: Path, server: Server) -> None:
    found = trip(python, "langchain_trip.py", server)
    for method in ("function_calling", "json_schema"):
        assert {key: type(value) for key, value in found[method].items()} == {"name": str, "age": int}
    assert isinstance(found["json_mode"], dict)
    assert found["calls"] == ["get_weather"]
    assert found["answer"]


def test_instructor(python: Path, server: Server) -> None:
    found = trip(python, "instructor_trip.py", server)
    for mode in ("TOOLS", "JSON_SCHEMA"):
        assert found[mode]["call"]["unit"] in ("celsius", "fahrenheit")
        assert found[mode]["answer"]["sky"] in ("clear", "cloudy")


def test_the_agents_sdk(python: Path, server: Server) -> None:
    found = trip(python, "agents_trip.py", server)
    assert found["calls"] == ["get_weather"]
    [result] = found["results"]
    assert result.startswith("It is sunny in ")
    assert found["answer"]
