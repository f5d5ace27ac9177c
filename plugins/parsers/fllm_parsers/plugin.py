"""What this package offers; naming costs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fllm import ChatTemplates, TemplateContext, hookimpl
from fllm.detection import ParserEntry
from fllm_parsers.reasoning_parsers import REASONING_PARSERS
from fllm_parsers.templates import model_templates

TOOLS = "fllm_parsers.tools."

TOOL_PARSERS = (
    ParserEntry(
        "deepseek_v3",
        TOOLS + "deepseek:DeepSeekV3Parser",
        "DeepSeek V3, R1: a code block of JSON between markers.",
        evidence=("<｜tool▁calls▁begin｜>", "```json"),
    ),
    ParserEntry(
        "deepseek_v31",
        TOOLS + "deepseek:DeepSeekV31Parser",
        "DeepSeek V3.1: name and JSON between markers.",
        evidence=("<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"),
        against=("```json",),
    ),
    ParserEntry(
        "granite",
        TOOLS + "granite:GraniteParser",
        "Granite 3: a JSON list behind <|tool_call|>.",
        evidence=("<|tool_call|>", "<|start_of_role|>"),
    ),
    ParserEntry(
        "granite-20b-fc",
        TOOLS + "granite_20b_fc:Granite20bFcParser",
        "Granite 20B: a JSON object behind each <function_call>.",
        evidence=("<function_call>",),
    ),
    ParserEntry(
        "hermes",
        TOOLS + "hermes:HermesParser",
        "Hermes, Qwen 2.5 and 3: JSON objects in <tool_call> tags.",
        evidence=("<tool_call>", "arguments"),
        against=("<function=", "<arg_key>"),
    ),
    ParserEntry(
        "hunyuan_a13b",
        TOOLS + "tool_calls_list:ToolCallsListParser",
        "Hunyuan A13B: a JSON list in <tool_calls> tags.",
        evidence=("<tool_calls>", "<|hy_"),
    ),
    ParserEntry(
        "internlm",
        TOOLS + "internlm:InternLM2Parser",
        "InternLM 2: a JSON object behind <|plugin|>.",
        evidence=("<|plugin|>", "<|action_start|>"),
    ),
    ParserEntry(
        "jamba",
        TOOLS + "tool_calls_list:ToolCallsListParser",
        "Jamba: a JSON list in <tool_calls> tags.",
        evidence=("<tool_calls>", "<|bom|>"),
    ),
    ParserEntry(
        "kimi_k2",
        TOOLS + "kimi_k2:KimiK2Parser",
        "Kimi K2: id and JSON between markers.",
        evidence=("<|tool_calls_section_begin|>", "<|tool_call_argument_begin|>"),
    ),
    ParserEntry(
        "llama3_json",
        TOOLS + "llama3_json:Llama3JsonParser",
        "Llama 3.1 to 3.3: JSON objects with name and parameters.",
        evidence=('{"name": function name, "parameters":', "<|start_header_id|>"),
    ),
    ParserEntry(
        "llama4_json",
        TOOLS + "llama3_json:Llama3JsonParser",
        "Llama 4: JSON objects with name and parameters.",
        evidence=("<|header_start|>", '"parameters"', '"name"'),
        against=("<|python_start|>[",),
    ),
    ParserEntry("minimax", TOOLS + "tool_calls_list:MiniMaxM1Parser", "The same as minimax_m1."),
    ParserEntry(
        "minimax_m1",
        TOOLS + "tool_calls_list:MiniMaxM1Parser",
        "MiniMax M1: a JSON object a line in <tool_calls> tags.",
        evidence=("<tool_calls>", "<beginning_of_sentence>"),
    ),
    ParserEntry(
        "mistral",
        TOOLS + "mistral:MistralParser",
        "Mistral: [TOOL_CALLS], then a JSON list, or names and JSON.",
        evidence=("[TOOL_CALLS]", "[AVAILABLE_TOOLS]"),
    ),
    ParserEntry(
        "phi4_mini_json",
        TOOLS + "phi4_mini_json:Phi4MiniJsonParser",
        "Phi-4-mini: functools[...].",
        evidence=("<|tool|>", "<|/tool|>"),
    ),
    ParserEntry("xlam", TOOLS + "xlam:XlamParser", "xLAM: a JSON list, bare or in a code block."),
)
"""How families of models write their calls."""


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
