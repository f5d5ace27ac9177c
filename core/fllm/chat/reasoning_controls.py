"""Find the variables of a chat template that turn reasoning on and off and set its effort and budget."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from jinja2 import TemplateError, meta, nodes
from msgspec import Struct

SWITCHES = ("enable_thinking", "thinking", "enable_reasoning")
"""Names that templates give to the variable that turns reasoning on or off."""
EFFORT = "reasoning_effort"
BUDGET = "thinking_budget"
LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""The efforts of OpenAI's API, and that of DeepSeek-V4, in order."""
_USUAL_LEVELS = ("low", "medium", "high")
"""What a template knows that only prints the effort, such as that of gpt-oss."""


class ReasoningControls(Struct, frozen=True):
    """The variables for reasoning that a template reads."""

    switches: tuple[str, ...] = ()
    efforts: tuple[str, ...] = ()
    """The efforts that the template knows, in order; empty if it does not read the effort."""
    budget: bool = False
    """Whether it reads the number of reasoning tokens, as that of Seed-OSS does."""

    def variables(self, effort: str | None, enabled: bool | None, budget: int | None) -> dict[str, Any]:
        """Return the template's variables for what a request asks for.

        An effort that the template does not know is replaced by the nearest one.
        """
        if enabled is None and effort is not None:
            enabled = effort != "none"
        variables: dict[str, Any] = {}
        if enabled is not None:
            variables |= dict.fromkeys(self.switches, enabled)
        if effort is not None:
            variables[EFFORT] = self._nearest(effort)
        if budget is not None and self.budget:
            variables[BUDGET] = budget
        return variables

    def _nearest(self, effort: str) -> str:
        known = [each for each in self.efforts if each in LEVELS and (each != "none" or effort == "none")]
        if effort in self.efforts or effort not in LEVELS or not known:
            return effort
        # Of two that are equally near, the higher.
        place = LEVELS.index(effort)
        return min(reversed(known), key=lambda each: abs(LEVELS.index(each) - place))


def reasoning_controls(tree: nodes.Template) -> ReasoningControls:
    """Return the controls of a template by its syntax tree."""
    try:
        names = meta.find_undeclared_variables(tree)
    except TemplateError:  # an unknown filter or test, which `Environment.from_string` reports
        return ReasoningControls()
    compared = [
        value
        for compare in tree.find_all(nodes.Compare)
        if any(name.name == EFFORT for name in compare.find_all(nodes.Name))
        for const in compare.find_all(nodes.Const)
        for value in (const.value if isinstance(const.value, list | tuple) else [const.value])
    ]
    return _controls(names, [level for level in LEVELS if level in compared])


def controls_of_source(source: str) -> ReasoningControls:
    """Return the controls of a template that must not be parsed here, by the words of its source."""
    return _controls({*re.findall(r"[a-z_]+", source)}, ())


def _controls(names: Collection[str], levels: Collection[str]) -> ReasoningControls:
    efforts = tuple(levels) or _USUAL_LEVELS
    return ReasoningControls(
        switches=tuple(name for name in SWITCHES if name in names),
        efforts=efforts if EFFORT in names else (),
        budget=BUDGET in names,
    )
