"""For the tests of a plugin: what each kind must satisfy, and a server to try it in. See docs/testing.md."""

from fllm.events import merged
from fllm.testing.outcomes import Outcome, outcomes
from fllm.testing.parsers import ReasoningParserContract, ToolParserContract
from fllm.testing.parsing import parse
from fllm.testing.plugins import plugins_with

__all__ = [
    "Outcome",
    "ReasoningParserContract",
    "ToolParserContract",
    "merged",
    "outcomes",
    "parse",
    "plugins_with",
]
