"""``furiosa-llm plugins check``: third-party plugins are checked in a new interpreter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.distributions import install, one_parser
from support.http_server import run

from fllm.testing import echo_model

PARSERS = """
import fllm

class Looking:
    '''Finds a call only within one piece.'''
    samples = ("So [call] there.",)

    def __init__(self, context):
        print("noise on stdout")

    def feed(self, text):
        if "[call]" not in text:
            return [fllm.Text(text)]
        return [fllm.ToolStart(0, "f"), fllm.ToolArguments(0, "{}")]

    def finish(self):
        return []

class Thinking:
    '''Its end is a special token.'''
    visible_tokens = ("[end]",)

    def __init__(self, context):
        self._text = ""

    def feed(self, text):
        self._text += text
        return []

    def finish(self):
        thought, end, answer = self._text.rpartition("[end]")
        return [fllm.Reasoning(thought), fllm.Text(answer)]

@fllm.hookimpl
def fllm_tool_parsers():
    yield fllm.Entry("looking", f"{__name__}:Looking")
    yield fllm.Entry("lost", f"{__name__}:Lost")

@fllm.hookimpl
def fllm_reasoning_parsers():
    yield fllm.Entry("thinking", f"{__name__}:Thinking")
"""
OTHERS = """
from litestar import get
import fllm

class Hopeful(fllm.Collector):
    def on_request_end(self, request): request.first_token_at + 1

@get("/ping", sync_to_thread=False)
def ping() -> str:
    return "pong"

@fllm.hookimpl
def fllm_collectors(context):
    yield Hopeful()

@fllm.hookimpl
def fllm_routes():
    return [ping]

@fllm.hookimpl
def fllm_commands():
    yield fllm.Entry("greet", f"{__name__}:Hopeful")

@fllm.hookimpl
def fllm_chat_template(context):
    return {"default": open(context.card.tokenizer + "/mine.jinja").read()}
"""
BY_PATTERN = r"""
import json, re
import fllm

class Tagged:
    def __init__(self, context):
        pass

    def feed(self, text):
        if not (found := re.fullmatch(r"(.*)<\|fn\|>(.*?)</fn>(.*)", text, re.DOTALL)):
            return [fllm.Text(text)]
        before, call, after = found.groups()
        try:
            name = json.loads(call)["name"]
        except (ValueError, TypeError, KeyError):
            return [fllm.Text(text)]
        return [fllm.Text(before), fllm.ToolStart(0, name), fllm.ToolArguments(0, "{}"), fllm.Text(after)]

    def finish(self):
        return []

@fllm.hookimpl
def fllm_tool_parsers():
    yield fllm.Entry("tagged", f"{__name__}:Tagged")
"""
DIVISION = "any division gives the same events"


def checked(*arguments: str | Path, status: int, site: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return the results that ``--json`` prints, by part and check."""
    environment = {"PYTHONPATH": str(site)} if site else {}
    done = run("plugins", "check", "--json", *map(str, arguments), timeout=120, **environment)
    assert done.returncode == status, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] == (status == 0)
    return {f"{each['part']}: {each['check']}": each for each in report["verdicts"]}


def refused(*arguments: str | Path, **environment: str) -> str:
    """Return the error line of a command that fails."""
    done = run("plugins", "check", *map(str, arguments), **environment)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    return line


def test_each_part_of_a_distribution_is_checked(tmp_path: Path) -> None:
    points = {"acme": "acme_parsers", "more": "acme_others", "echo": "fllm.testing.echo"}
    install(tmp_path, "acme", {"acme_parsers": PARSERS, "acme_others": OTHERS}, points)
    model = echo_model(tmp_path / "model")
    found = checked("acme", "--model", model, "--max-model-len", "64", status=1, site=tmp_path)
    outcomes = {name: each["outcome"] for name, each in found.items()}
    assert outcomes[f"tool-call parser looking: {DIVISION}"] == "failed"
    assert outcomes[f"reasoning parser thinking: {DIVISION}"] == "passed"
    assert outcomes["backend echo: starts"] == "passed"
    assert outcomes["backend echo: stop ends running requests"] == "passed"
    assert outcomes["fllm_routes: routes can be mounted: /ping"] == "passed"
    assert outcomes["fllm_collectors: Hopeful: a request that succeeds"] == "passed"
    reasons = {name: each["reason"] for name, each in found.items() if each["outcome"] == "failed"}
    assert "has no attribute 'Lost'" in reasons["tool-call parser lost: loads without errors"]
    assert "it is a type" in reasons["command greet: is a click command"]
    assert "mine.jinja" in reasons["fllm_chat_template: does not fail for a model without files"]
    unanswered = "a request that is rejected or aborted before its first token"
    assert "on_request_end raised TypeError" in reasons[f"fllm_collectors: Hopeful: {unanswered}"]


def test_a_failure_shows_the_smallest_failing_split(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PARSERS.replace('        print("noise on stdout")', "        pass"))
    done = run("plugins", "check", str(file), timeout=120)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = lines.index(f"  failed  {DIVISION}")
    assert (
        lines[at + 1]
        == " " * 10
        + "the events depend on how the text is divided; hold back text until no later text can change it"
    )
    assert lines[at + 2].split() == ["text", "'[call]'"]
    assert lines[-1] == "8 passed, 3 failed"


def test_marks_are_read_from_the_regular_expressions_of_a_parser(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BY_PATTERN)
    found = checked(file, status=1)
    characters = found["tool-call parser tagged: one character at a time gives the same events"]
    assert characters["reason"].startswith("the events depend on how the text is divided")
    sound = found["tool-call parser tagged: events are well formed and no text is lost"]
    assert sound["reason"].startswith("a call has no name")


def test_one_entry_is_checked_by_its_name_and_backends_are_not_started_without_a_model(
    tmp_path: Path,
) -> None:
    points = {"acme": "acme_parsers", "echo": "fllm.testing.echo"}
    install(tmp_path, "acme", {"acme_parsers": PARSERS}, points)
    found = checked("echo", status=0, site=tmp_path)
    assert {name: each["outcome"] for name, each in found.items()} == {
        ": loads without errors": "passed",
        "backend echo: loads without errors": "passed",
        "backend echo: passes BackendContract": "skipped",
    }
    assert {each["part"] for each in checked("thinking", status=0, site=tmp_path).values()} == {
        "",
        "reasoning parser thinking",
    }


def test_a_project_is_checked_in_its_directory(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "mine.py").write_text(one_parser("mine", "whole"))
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "p"\n[project.entry-points.fllm]\nm = "mine"\n'
    )
    assert f"tool-call parser whole: {DIVISION}" in checked(tmp_path, status=0)


def test_a_plugin_that_cannot_be_loaded_fails_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("1 / 0")
    [result] = checked(file, status=1).values()
    assert "ZeroDivisionError: division by zero" in result["reason"]


def test_a_missing_plugin_is_a_one_line_error(tmp_path: Path) -> None:
    assert "is not a project: it has no pyproject.toml" in refused(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert "add [project.entry-points.fllm]" in refused(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project")
    assert "can't read" in refused(tmp_path)
    assert "does not exist" in refused(tmp_path / "nothing.py")
    assert "did you mean 'hermes'?" in refused("hermess")


def test_without_hypothesis_it_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['hypothesis'] = None\n")
    line = refused("hermes", PYTHONPATH=str(tmp_path))
    assert line.endswith("`plugins check` requires hypothesis: pip install 'furiosa-llm-server[testing]'")


@pytest.mark.parametrize("name", ["hermes", "metrics"])
def test_built_in_plugins_pass(name: str) -> None:
    assert not [each for each in checked(name, status=0).values() if each["outcome"] != "passed"]
