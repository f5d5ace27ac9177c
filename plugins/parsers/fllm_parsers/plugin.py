"""The plugin of the parsers; it imports no parser."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fllm import ChatTemplates, ParserEntry, TemplateContext, hookimpl
from fllm_parsers.reasoning_parsers import REASONING_PARSERS
from fllm_parsers.templates import model_templates
from fllm_parsers.tool_parsers import TOOL_PARSERS


@hookimpl
def fllm_tool_parsers() -> Iterable[ParserEntry]:
    """Yield an entry for each format of tool calls."""
    return TOOL_PARSERS


@hookimpl
def fllm_reasoning_parsers() -> Iterable[ParserEntry]:
    """Yield an entry for each format of reasoning."""
    return REASONING_PARSERS


@hookimpl(trylast=True)
def fllm_chat_template(context: TemplateContext) -> ChatTemplates | None:
    """Return the templates of the model, if no other plugin has returned any."""
    return model_templates(Path(context.card.tokenizer))
