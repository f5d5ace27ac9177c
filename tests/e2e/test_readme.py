"""The README's examples, run unchanged with both common major versions of the OpenAI client."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.http_server import Server, serving
from support.model_scripts import DEEPSEEK_R1, LLAMA31_WEATHER
from support.paths import ROOT

README = (ROOT / "README.md").read_text()


def example(heading: str) -> str:
    match = re.search(rf"^### {heading}$.*?^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert match, heading
    return match[1]


def run_example(heading: str, server: Server, client: Path | None, **changes: str) -> str:
    """Run an example of the page with another port and ``changes``; return its output."""
    code = example(heading)
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    return run_code(code, server, client)


def run_code(code: str, server: Server, client: Path | None) -> str:
    """Run code of the page with another port; return its output."""
    code = code.replace("http://localhost:8000", server.url)
    environment = {**os.environ, "PYTHONPATH": str(client or ""), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session", params=["openai 3", "openai 2"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Return a directory with that version of the client, or ``None`` for the installed one."""
    if request.param == "openai 3":
        return None
    target = tmp_path_factory.mktemp("openai2")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), "openai>=2,<3"]
    subprocess.run(install, check=True)
    return target


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run the server as on the page: the default model, without options."""
    with serving() as running:
        yield running


@pytest.mark.parametrize("heading", ["Chat", "Streaming"])
def test_chat_examples_give_the_right_response(heading: str, server: Server, client: Path | None) -> None:
    assert "Paris" in run_example(heading, server, client)


def test_the_first_response_is_json(server: Server) -> None:
    match = re.search(r"^curl .*?json\.tool$", README, re.MULTILINE | re.DOTALL)
    assert match
    command = match[0].replace("http://localhost:8000", server.url).replace("curl", "curl --silent", 1)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert "Paris" in json.loads(done.stdout)["choices"][0]["message"]["content"], done.stderr


def test_the_default_model_calls_the_tool(server: Server, client: Path | None) -> None:
    called, arguments, result = run_example("Tools", server, client).splitlines()
    assert called == "Function called: get_weather"
    assert json.loads(arguments.removeprefix("Arguments: "))["location"] == "San Francisco, CA"
    assert result.startswith("Result: Getting the weather for San Francisco, CA in ")


def test_the_reasoning_example_runs_on_the_default_model(server: Server, client: Path | None) -> None:
    printed = run_example("Reasoning", server, client)
    assert printed.startswith("Answer: ")


def test_the_tools_example_prints_a_call(scripted: Callable[..., Server], client: Path | None) -> None:
    server = scripted(LLAMA31_WEATHER, "--enable-auto-tool-choice", "--tool-call-parser", "llama3_json")
    auto = {'tool_choice="required"': 'tool_choice="auto"'}
    assert run_example("Tools", server, client, **auto).splitlines() == [
        "Function called: get_weather",
        'Arguments: {"location": "San Francisco, CA", "unit": "fahrenheit"}',
        "Result: Getting the weather for San Francisco, CA in fahrenheit...",
    ]


def test_the_reasoning_example_separates_reasoning_from_content(
    scripted: Callable[..., Server], client: Path | None
) -> None:
    server = scripted(DEEPSEEK_R1, "--enable-reasoning", "--reasoning-parser", "deepseek_r1")
    printed = run_example("Reasoning", server, client)
    assert printed.startswith("Reasoning: First, compare 9.11 and 9.8")
    assert "</think>" not in printed
    assert printed.rstrip().endswith("9.8 is greater.")


def test_the_tools_example_runs_on_the_default_model_if_it_decides(
    server: Server, client: Path | None
) -> None:
    code = example("Tools").replace('tool_choice="required"', 'tool_choice="auto"')
    printed = code.partition("\ntool_call = ")[0] + "\nprint(response.choices[0].message)\n"
    assert "content=" in run_code(printed, server, client)


def test_the_parsers_of_the_page_exist() -> None:
    line = re.search(r"--tool-call-parser \w+ --reasoning-parser \w+$", README, re.MULTILINE)
    assert line
    with serving(*line[0].split()) as running:
        assert "--reasoning-parser deepseek_r1: responses begin with reasoning" in running.log()
