"""The maximum of reasoning tokens, between the request and the backend."""

from __future__ import annotations

from fllm.errors import RequestError
from fllm.interfaces import LimitsReasoning, Parser
from fllm.values import ReasoningLimit


def reasoning_limit(max_tokens: int, parser: Parser | None) -> ReasoningLimit | None:
    """Return the limit of an output that ``parser`` will parse, or ``None`` if it has no reasoning.

    Raise `RequestError` if the parser can't say how its reasoning ends.
    """
    if parser is None or not isinstance(parser, LimitsReasoning):
        raise RequestError(
            "`thinking_token_budget` is not supported: the reasoning parser does not declare the markers of "
            "the reasoning",
            param="thinking_token_budget",
            code="unsupported_parameter",
        )
    return parser.limit_reasoning(max_tokens)
