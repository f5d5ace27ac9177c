"""The entries of the tool-call parsers, with what ``auto`` recognizes their models by."""

from __future__ import annotations

from fllm import ParserEntry

TOOLS = "fllm_parsers.tools."

TOOL_PARSERS = (
    ParserEntry(
        "deepseek_v3",
        TOOLS + "deepseek:DeepSeekV3Parser",
        "DeepSeek V3, R1: a code block of JSON between markers.",
        template_markers=("<｜tool▁calls▁begin｜>", "```json"),
    ),
    ParserEntry(
        "deepseek_v31",
        TOOLS + "deepseek:DeepSeekV31Parser",
        "DeepSeek V3.1: name and JSON between markers.",
        template_markers=("<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"),
        excluded_markers=("```json",),
    ),
    ParserEntry(
        "gemma4",
        TOOLS + "gemma4:Gemma4Parser",
        "Gemma 4: call:name{...} between markers.",
        template_markers=("<|tool_call>", '<|"|>'),
    ),
    ParserEntry(
        "glm45",
        TOOLS + "glm45:Glm45Parser",
        "GLM 4.5 and 4.6: a name and tagged arguments in <tool_call> tags.",
        template_markers=("<tool_call>", "<arg_key>"),
    ),
    ParserEntry(
        "glm47",
        TOOLS + "glm45:Glm47Parser",
        "GLM 4.7: the same as glm45 without line breaks.",
    ),
    ParserEntry("ernie45", TOOLS + "hermes:HermesParser", "ERNIE 4.5: the format of Hermes."),
    ParserEntry(
        "gigachat3",
        TOOLS + "gigachat3:GigaChat3Parser",
        "GigaChat 3: a JSON object after <|function_call|>.",
        template_markers=("function call", "<|role_sep|>"),
    ),
    ParserEntry(
        "granite",
        TOOLS + "granite:GraniteParser",
        "Granite 3: a JSON list after <|tool_call|>.",
        template_markers=("<|tool_call|>", "<|start_of_role|>"),
    ),
    ParserEntry(
        "granite-20b-fc",
        TOOLS + "granite_20b_fc:Granite20bFcParser",
        "Granite 20B: a JSON object after each <function_call>.",
        template_markers=("<function_call>",),
    ),
    ParserEntry("granite4", TOOLS + "hermes:HermesParser", "Granite 4: the format of Hermes."),
    ParserEntry(
        "hermes",
        TOOLS + "hermes:HermesParser",
        "Hermes, Qwen 2.5 and 3: JSON objects in <tool_call> tags.",
        template_markers=("<tool_call>", "arguments"),
        excluded_markers=("<function=", "<arg_key>"),
    ),
    ParserEntry(
        "hunyuan_a13b",
        TOOLS + "tool_calls_list:ToolCallsListParser",
        "Hunyuan A13B: a JSON list in <tool_calls> tags.",
        template_markers=("<tool_calls>", "<|hy_"),
    ),
    ParserEntry(
        "internlm",
        TOOLS + "internlm:InternLM2Parser",
        "InternLM 2: a JSON object after <|plugin|>.",
        required_tokens=("<|plugin|>", "<|action_start|>"),
    ),
    ParserEntry(
        "jamba",
        TOOLS + "tool_calls_list:ToolCallsListParser",
        "Jamba: a JSON list in <tool_calls> tags.",
        template_markers=("<tool_calls>", "<|bom|>"),
    ),
    ParserEntry(
        "kimi_k2",
        TOOLS + "kimi_k2:KimiK2Parser",
        "Kimi K2: id and JSON between markers.",
        template_markers=("<|tool_calls_section_begin|>", "<|tool_call_argument_begin|>"),
    ),
    ParserEntry(
        "lfm2",
        TOOLS + "pythonic:Lfm2Parser",
        "LFM 2: a list of Python calls between markers.",
        template_markers=("<|tool_call_start|>", "<|tool_list_start|>"),
    ),
    ParserEntry(
        "llama3_json",
        TOOLS + "llama3_json:Llama3JsonParser",
        "Llama 3.1 to 3.3: JSON objects with name and parameters.",
        template_markers=('{"name": function name, "parameters":', "<|start_header_id|>"),
    ),
    ParserEntry(
        "llama4_json",
        TOOLS + "llama3_json:Llama3JsonParser",
        "Llama 4: JSON objects with name and parameters.",
        template_markers=("<|header_start|>", '"parameters"', '"name"'),
        excluded_markers=("<|python_start|>[",),
    ),
    ParserEntry(
        "llama4_pythonic",
        TOOLS + "pythonic:Llama4PythonicParser",
        "Llama 4: a list of Python calls.",
        template_markers=("[func_name1(params_name1=", "<|header_start|>"),
    ),
    ParserEntry(
        "mimo",
        TOOLS + "qwen3_coder:MiMoParser",
        "MiMo: the tags of qwen3_coder, with unchanged values.",
    ),
    ParserEntry(
        "longcat",
        TOOLS + "hermes:LongCatParser",
        "LongCat: JSON objects in <longcat_tool_call> tags.",
        template_markers=("<longcat_tool_call>",),
    ),
    ParserEntry("minimax", TOOLS + "tool_calls_list:MiniMaxM1Parser", "The same as minimax_m1."),
    ParserEntry(
        "minimax_m1",
        TOOLS + "tool_calls_list:MiniMaxM1Parser",
        "MiniMax M1: one JSON object per line in <tool_calls> tags.",
        template_markers=("<tool_calls>", "<beginning_of_sentence>"),
    ),
    ParserEntry(
        "minimax_m2",
        TOOLS + "minimax_m2:MiniMaxM2Parser",
        "MiniMax M2: <invoke> tags with a tag for each argument.",
        template_markers=("<minimax:tool_call>",),
    ),
    ParserEntry(
        "mistral",
        TOOLS + "mistral:MistralParser",
        "Mistral: [TOOL_CALLS], then a JSON list, or names and JSON.",
        template_markers=("[TOOL_CALLS]", "[AVAILABLE_TOOLS]"),
    ),
    ParserEntry(
        "nemotron_v3",
        TOOLS + "qwen3_coder:Qwen3CoderParser",
        "The same as qwen3_coder.",
    ),
    ParserEntry(
        "olmo3",
        TOOLS + "olmo3:Olmo3Parser",
        "OLMo 3: one Python call per line in <function_calls> tags.",
        template_markers=("<function_calls>", "<functions>"),
    ),
    ParserEntry(
        "openai",
        TOOLS + "openai:OpenAIParser",
        "gpt-oss: messages to functions in the harmony format.",
        template_markers=("<|channel|>", "<|call|>"),
    ),
    ParserEntry(
        "phi4_mini_json",
        TOOLS + "phi4_mini_json:Phi4MiniJsonParser",
        "Phi-4-mini: functools[...].",
        template_markers=("<|tool|>", "<|/tool|>"),
    ),
    ParserEntry(
        "poolside_v1",
        TOOLS + "glm45:Glm47Parser",
        "The same as glm47.",
    ),
    ParserEntry(
        "pythonic",
        TOOLS + "pythonic:PythonicParser",
        "Llama 3.2 and others: a list of Python calls.",
        template_markers=("[func_name1(params_name1=",),
    ),
    ParserEntry(
        "qwen3_coder",
        TOOLS + "qwen3_coder:Qwen3CoderParser",
        "Qwen3-Coder: <function=...> with a tag for each argument.",
        template_markers=("<tool_call>", "<function=", "<parameter="),
    ),
    ParserEntry(
        "qwen3_xml",
        TOOLS + "qwen3_coder:Qwen3CoderParser",
        "The same as qwen3_coder.",
    ),
    ParserEntry(
        "seed_oss",
        TOOLS + "qwen3_coder:SeedOssParser",
        "Seed-OSS: the tags of qwen3_coder in <seed:tool_call> tags.",
        template_markers=("<seed:tool_call>",),
    ),
    ParserEntry(
        "step3",
        TOOLS + "step3:Step3Parser",
        "Step 3: <steptml:invoke> tags between markers.",
        template_markers=("steptml:invoke",),
    ),
    ParserEntry(
        "step3p5",
        TOOLS + "qwen3_coder:Qwen3CoderParser",
        "The same as qwen3_coder.",
    ),
    ParserEntry("xlam", TOOLS + "xlam:XlamParser", "xLAM: a JSON list, bare or in a code block."),
)
"""An entry for each name of a tool-call parser."""
