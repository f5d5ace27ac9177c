"""Read the fields of a chat request that control reasoning, in the forms of several APIs."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from fllm.chat.reasoning_controls import ReasoningControls
from fllm.requests.chat import ChatRequest, ReasoningOptions, ThinkingOptions
from fllm_api.intake.sampling import first_set

TEMPLATE_BUDGET = "chat_template_kwargs.thinking_budget"
_THINKING_TYPES = {"enabled": True, "disabled": False}


class ReasoningSettings(Struct, frozen=True, kw_only=True):
    """What a request asks for."""

    effort: str | None = None
    enabled: bool | None = None
    """Whether to reason at all; ``None``: as the effort says, or the template's default."""
    budget: int | None = None
    """Maximum number of reasoning tokens."""
    budget_param: str = ""
    """The field that sets it."""
    included: bool = True
    """Whether the response includes the reasoning."""

    def template_variables(self, controls: ReasoningControls) -> dict[str, Any]:
        """Return the variables of a chat template with these controls."""
        return controls.variables(self.effort, self.enabled, self.budget)


def read_reasoning(body: ChatRequest) -> ReasoningSettings:
    """Return what a request asks for. OpenAI's and vLLM's fields take precedence over those of others."""
    options, thinking = body.reasoning or ReasoningOptions(), _thinking_options(body.thinking)
    budgets = {
        "thinking_token_budget": body.thinking_token_budget,
        "thinking_budget": body.thinking_budget,
        "reasoning.max_tokens": options.max_tokens,
        "thinking.budget_tokens": thinking.budget_tokens,
        TEMPLATE_BUDGET: _integer((body.chat_template_kwargs or {}).get("thinking_budget")),
    }
    budget_param, budget = next(
        ((name, value) for name, value in budgets.items() if value is not None), ("", -1)
    )
    return ReasoningSettings(
        effort=first_set(body.reasoning_effort, options.effort, default=None),
        enabled=first_set(
            body.enable_thinking, options.enabled, _THINKING_TYPES.get(thinking.type), default=None
        ),
        budget=None if budget < 0 else budget,
        budget_param=budget_param,
        included=body.include_reasoning is not False and options.exclude is not True,
    )


def _thinking_options(thinking: ThinkingOptions | bool | None) -> ThinkingOptions:
    if isinstance(thinking, bool):
        return ThinkingOptions(type="enabled" if thinking else "disabled")
    return thinking or ThinkingOptions()


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
