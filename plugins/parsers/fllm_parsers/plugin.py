"""What this package offers; naming costs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fllm import ChatTemplates, ParserEntry, TemplateContext, hookimpl
from fllm_parsers.reasoning_parsers import REASONING_PARSERS
from fllm_parsers.templates import model_templates
from fllm_parsers.tool_parsers import TOOL_PARSERS


@hookimpl
def fllm_tool_parsers() -> Iterable[ParserEntry]:
    """A name for each format that a family of models writes its calls in."""
    return TOOL_PARSERS


@hookimpl
def fllm_reasoning_parsers() -> Iterable[ParserEntry]:
    """A name for each way that a family of models marks its reasoning."""
    return REASONING_PARSERS


@hookimpl(trylast=True)
def fllm_chat_template(context: TemplateContext) -> ChatTemplates | None:
    """The model's own, if nobody else has one."""
    return model_templates(Path(context.card.tokenizer))
