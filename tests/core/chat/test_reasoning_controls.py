"""The variables of chat templates that control reasoning."""

from __future__ import annotations

import pytest
from support.paths import SHARED

from fllm.chat.jinja_environment import jinja_environment
from fllm.chat.reasoning_controls import (
    LEVELS,
    ReasoningControls,
    controls_of_source,
    reasoning_controls,
)

TEMPLATES = SHARED / "templates"
USUAL = ("low", "medium", "high")


def controls(source: str) -> ReasoningControls:
    return reasoning_controls(jinja_environment().parse(source))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ messages }}", ReasoningControls()),
        ("{% if enable_thinking is defined %}a{% endif %}", ReasoningControls(switches=("enable_thinking",))),
        ("{% if thinking %}a{% endif %}", ReasoningControls(switches=("thinking",))),
        (
            "{% if not thinking is defined %}{% set thinking = enable_thinking %}{% endif %}{{ thinking }}",
            ReasoningControls(switches=("enable_thinking", "thinking")),
        ),
        ("{% set thinking = 1 %}{{ thinking }}", ReasoningControls()),
        ("{{ messages[0].thinking }}<|thinking|>", ReasoningControls()),
        ("Reasoning: {{ reasoning_effort }}", ReasoningControls(efforts=USUAL)),
        (
            "{% if reasoning_effort not in ['none', 'high'] %}a{% endif %}",
            ReasoningControls(efforts=("none", "high")),
        ),
        ("{% if reasoning_effort == 'max' %}a{% endif %}", ReasoningControls(efforts=("max",))),
        ("{{ thinking_budget }}", ReasoningControls(budget=True)),
        ("{{ thinking | a_filter_that_does_not_exist }}", ReasoningControls()),
    ],
)
def test_controls_are_the_variables_that_a_template_reads(source: str, expected: ReasoningControls) -> None:
    assert controls(source) == expected


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("Qwen-Qwen3-0.6B", ReasoningControls(switches=("enable_thinking",))),
        ("GLM-4.6", ReasoningControls(switches=("enable_thinking",))),
        ("deepseek-ai-DeepSeek-V3.1", ReasoningControls(switches=("enable_thinking", "thinking"))),
        ("ibm-granite-granite-3.3-2B-Instruct", ReasoningControls(switches=("thinking",))),
        ("openai-gpt-oss-120b", ReasoningControls(efforts=USUAL)),
        ("meta-llama-Llama-3.1-8B-Instruct", ReasoningControls()),
    ],
)
def test_controls_of_model_families(family: str, expected: ReasoningControls) -> None:
    file = TEMPLATES / f"{family}.jinja"
    if not file.exists():
        pytest.skip(f"the templates of model families are not at {TEMPLATES}")
    assert controls(file.read_text()) == expected


def test_a_source_that_is_not_parsed_is_searched_for_the_names() -> None:
    source = "{% if enable_thinking %}{{ reasoning_effort }}{% endif %}"
    assert controls_of_source(source) == ReasoningControls(switches=("enable_thinking",), efforts=USUAL)


@pytest.mark.parametrize(
    ("known", "nearest"),
    [
        (USUAL, ("low", "low", "low", "medium", "high", "high", "high")),
        (("none", "high"), ("none", "high", "high", "high", "high", "high", "high")),
        (("none",), LEVELS),
        (("max",), ("max",) * 7),
        ((), LEVELS),
    ],
)
def test_an_effort_becomes_the_nearest_that_the_template_knows(
    known: tuple[str, ...], nearest: tuple[str, ...]
) -> None:
    found = [ReasoningControls(efforts=known).variables(level, None, None) for level in LEVELS]
    assert tuple(each["reasoning_effort"] for each in found) == nearest


def test_an_effort_of_the_templates_own_is_passed_as_it_is() -> None:
    assert ReasoningControls(efforts=USUAL).variables("no_think", None, None) == {
        "reasoning_effort": "no_think"
    }


def test_only_the_effort_none_turns_reasoning_off() -> None:
    both = ReasoningControls(switches=("enable_thinking", "thinking"))
    for level in LEVELS:
        enabled = level != "none"
        variables = both.variables(level, None, None)
        assert (variables["enable_thinking"], variables["thinking"]) == (enabled, enabled)
    assert both.variables("none", True, None)["thinking"] is True
    assert both.variables(None, None, None) == {}


def test_only_a_template_that_reads_the_budget_gets_it() -> None:
    assert ReasoningControls(budget=True).variables(None, None, 5) == {"thinking_budget": 5}
    assert ReasoningControls().variables(None, None, 5) == {}
