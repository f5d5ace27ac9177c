"""What this package offers; naming costs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fllm import ChatTemplates, TemplateContext, hookimpl
from fllm.detection import ParserEntry
from fllm_parsers.templates import model_templates

TOOLS = "fllm_parsers.tools."
REASONING = "fllm_parsers.reasoning."

TOOL_PARSERS = (
    ParserEntry(
        "hermes",
        TOOLS + "hermes:HermesParser",
        "Hermes, Qwen 2.5 and 3: JSON objects in <tool_call> tags.",
        evidence=("<tool_call>", "arguments"),
        against=("<function=", "<arg_key>"),
    ),
    ParserEntry(
        "llama3_json",
        TOOLS + "llama3_json:Llama3JsonParser",
        "Llama 3.1 to 3.3: JSON objects with name and parameters.",
        evidence=('{"name": function name, "parameters":', "<|start_header_id|>"),
    ),
)
"""How families of models write their calls."""

REASONING_PARSERS = (
    ParserEntry(
        "deepseek_r1",
        REASONING + "deepseek_r1:DeepSeekR1Parser",
        "DeepSeek-R1 and its kin: <think>...</think>.",
    ),
)
"""How families of models mark their reasoning."""


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
