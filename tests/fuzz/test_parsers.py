"""A few cases of what ``scripts/fuzz`` runs for hours: the same cases each time, so that failures repeat."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from fuzz.laws import check
from fuzz.session import Broken, run_case
from fuzz.subjects import Subject, subjects
from support.paths import ROOT

from fllm import ParserContext, ParserEvent, Text, ToolArguments, ToolStart
from fllm.testing import plugins_with

SUBJECTS = subjects()
CASES = 300


@pytest.mark.parametrize("subject", SUBJECTS, ids=[subject.title for subject in SUBJECTS])
def test_no_text_breaks_a_law(subject: Subject) -> None:
    _run_cases(subject, CASES)


def test_every_registered_name_is_fuzzed() -> None:
    plugins = plugins_with()
    tools = {registration.entry.target for registration in plugins.tool_parsers}
    reasoning = {registration.entry.target for registration in plugins.reasoning_parsers}
    assert len(SUBJECTS) == len(tools) + len(reasoning)


def _run_cases(subject: Subject, count: int) -> None:
    for case in range(count):
        run_case(subject, f"ci.{case}")


class _Bad:
    """A parser that breaks the law that its class attribute names."""

    fault = ""

    def __init__(self, _: ParserContext) -> None:
        self._fed = 0

    def feed(self, text: str) -> Iterable[ParserEvent]:
        self._fed += 1
        match self.fault:
            case "raises":
                raise KeyError(text)
            case "divided":
                return [Text(text if self._fed == 1 else text.upper())]
            case "lost":
                return [Text(text[1:])] if self._fed == 1 else [Text(text)]
            case "doubled":
                return [Text(text), Text(text)]
            case "arguments":
                return [ToolStart(0, "f"), ToolArguments(0, "{" if self._fed == 1 else "")] if text else []
            case _:
                return [Text(text)]

    def finish(self) -> Iterable[ParserEvent]:
        return [Text("x")] if self.fault == "twice" else []


@pytest.mark.parametrize("fault", ["raises", "divided", "lost", "doubled", "arguments", "twice"])
def test_a_parser_that_breaks_a_law_is_found(fault: str) -> None:
    bad = type("Bad", (_Bad,), {"fault": fault})
    with pytest.raises(Broken, match=r"pieces \["):
        _run_cases(Subject("tool", "bad", bad), 50)


def test_a_parser_that_obeys_is_not() -> None:
    check(Subject("tool", "good", _Bad), ParserContext(), ["a", "b"], constrained=False)


def test_the_script_runs_for_the_given_time() -> None:
    script = ROOT / "scripts" / "fuzz"
    done = subprocess.run(
        [str(script), "--seconds", "0.5", "--only", "tool/longcat", "--seed", "1"],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("1 parsers")
    assert "0 parsers broke a law" in done.stdout
