"""What this package offers; naming costs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fllm import ChatTemplates, Entry, TemplateContext, hookimpl
from fllm_parsers.templates import model_templates


@hookimpl
def fllm_tool_parsers() -> Iterable[Entry]:
    """A name for each format that a family of models writes its calls in."""
    yield Entry(
        "llama3_json",
        "fllm_parsers.tools.llama3_json:Llama3JsonParser",
        "Llama 3.1 to 3.3: JSON objects with name and parameters.",
    )


@hookimpl
def fllm_reasoning_parsers() -> Iterable[Entry]:
    """A name for each way that a family of models marks its reasoning."""
    yield Entry(
        "deepseek_r1",
        "fllm_parsers.reasoning.deepseek_r1:DeepSeekR1Parser",
        "DeepSeek-R1 and its kin: <think>...</think>.",
    )


@hookimpl(trylast=True)
def fllm_chat_template(context: TemplateContext) -> ChatTemplates | None:
    """The model's own, if nobody else has one."""
    return model_templates(Path(context.card.tokenizer))
