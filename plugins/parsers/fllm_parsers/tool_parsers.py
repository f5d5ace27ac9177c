"""The entries of the tool-call parsers, with what ``auto`` recognizes their models by."""

from __future__ import annotations

from fllm import ParserEntry

TOOLS = "fllm_parsers.tools."

JSON_CALL = ('{"name"', '{\\"name\\"')
"""The beginning of a call in an example, which a template may quote."""

TOOL_PARSERS = (
    ParserEntry(
        "apertus",
        TOOLS + "apertus:ApertusParser",
        "Apertus: a JSON list between markers, {name: arguments}.",
        template_markers=("<|tools_prefix|>",),
    ),
    ParserEntry(
        "apertus2509",
        TOOLS + "apertus:ApertusParser",
        "The same as apertus.",
    ),
    ParserEntry(
        "cohere_command3",
        TOOLS + "cohere:CohereCommandParser",
        "Cohere Command A and R7B: a JSON list after <|START_ACTION|>.",
        template_markers=("<|START_ACTION|>", "<|START_RESPONSE|>"),
    ),
    ParserEntry(
        "cohere_command4",
        TOOLS + "cohere:CohereCommandParser",
        "Later Cohere models: the same as cohere_command3.",
        template_markers=("<|START_ACTION|>", "<|START_TEXT|>"),
    ),
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
        "deepseek_v32",
        TOOLS + "dsml:DeepSeekV32Parser",
        "DeepSeek-V3.2: DSML tags with a mark of strings.",
        template_markers=("｜DSML｜", "function_calls>"),
    ),
    ParserEntry(
        "deepseek_v4",
        TOOLS + "dsml:DeepSeekV4Parser",
        "DeepSeek-V4: the tags of deepseek_v32 in tool_calls tags.",
        template_markers=("｜DSML｜", "tool_calls>"),
    ),
    ParserEntry(
        "deepseek_v41",
        TOOLS + "dsml:DeepSeekV41Parser",
        "DeepSeek-V4.1: the tags of deepseek_v32 with spaces.",
        template_markers=("｜DSML｜", " calls>"),
    ),
    ParserEntry(
        "gemma4",
        TOOLS + "gemma4:Gemma4Parser",
        "Gemma 4: call:name{...} between markers.",
        template_markers=("<|tool_call>", '<|"|>'),
    ),
    ParserEntry(
        "gigachat35",
        TOOLS + "dsml:GigaChat35Parser",
        "GigaChat 3.5: GCML tags with a mark of strings.",
        template_markers=("｜GCML｜",),
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
        template_markers=("<tool_call>", "<arg_key>", "</arg_key><arg_value>"),
    ),
    ParserEntry("ernie45", TOOLS + "hermes:HermesParser", "ERNIE 4.5: the format of Hermes."),
    ParserEntry(
        "gigachat3",
        TOOLS + "gigachat3:GigaChat3Parser",
        "GigaChat 3: a JSON object after <|function_call|>.",
        template_markers=("function call", "<|role_sep|>"),
    ),
    ParserEntry(
        "functiongemma",
        TOOLS + "gemma4:FunctionGemmaParser",
        "FunctionGemma: call:name{...} between markers.",
        template_markers=("<start_function_call>", "<escape>"),
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
        template_markers=("<tool_call>", "arguments", JSON_CALL),
        excluded_markers=("<function=", "<arg_key>", "<tool_calls>[", "]<]minimax[>["),
    ),
    ParserEntry(
        "hunyuan_a13b",
        TOOLS + "tool_calls_list:ToolCallsListParser",
        "Hunyuan A13B: a JSON list in <tool_calls> tags.",
        template_markers=("<tool_calls>", "<|hy_"),
    ),
    ParserEntry(
        "hy_v3",
        TOOLS + "hy_v3:HyV3Parser",
        "Tencent Hy3: a name and tagged arguments, with a separator between them.",
        template_markers=(("<arg_key>", "<arg_key{}>"), ("<tool_sep>", "<tool_sep{}>")),
    ),
    ParserEntry(
        "hy_v4",
        TOOLS + "hy_v3:HyV4Parser",
        "Tencent Hy4: a name and tagged arguments in <tool_calls> tags.",
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
        template_markers=("<tool_calls>[", '"arguments"'),
    ),
    ParserEntry(
        "kimi_k2",
        TOOLS + "kimi_k2:KimiK2Parser",
        "Kimi K2: id and JSON between markers.",
        template_markers=("<|tool_calls_section_begin|>", "<|tool_call_argument_begin|>"),
    ),
    ParserEntry(
        "kimi_k3",
        TOOLS + "kimi_k3:KimiK3Parser",
        "Kimi K3: elements with typed arguments.",
        template_markers=("<|open|>", "<|close|>", "<|sep|>", "tools"),
    ),
    ParserEntry(
        "lfm2",
        TOOLS + "pythonic:Lfm2Parser",
        "LFM 2: a list of Python calls between markers.",
        required_tokens=("<|tool_call_start|>", "<|tool_call_end|>"),
    ),
    ParserEntry(
        "ling3",
        TOOLS + "glm45:Glm47Parser",
        "Ling 3: the same as glm47.",
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
        template_markers=("[func_name1(", "<|header_start|>"),
    ),
    ParserEntry(
        "mimo",
        TOOLS + "qwen3_coder:MiMoParser",
        "MiMo: the tags of qwen3_coder, with unchanged values.",
    ),
    ParserEntry(
        "minicpm5",
        TOOLS + "minicpm5:MiniCPM5Parser",
        "MiniCPM5: <function name=...> with a tag for each argument.",
        template_markers=('<function name="', '<param name="'),
    ),
    ParserEntry(
        "minicpmv",
        TOOLS + "qwen3_coder:Qwen3CoderParser",
        "MiniCPM-V: the same as qwen3_coder.",
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
        "minimax_m3",
        TOOLS + "minimax_m3:MiniMaxM3Parser",
        "MiniMax M3: nested tags after special tokens.",
        template_markers=("]<]minimax[>[", "<invoke name="),
    ),
    ParserEntry(
        "mistral",
        TOOLS + "mistral:MistralParser",
        "Mistral: [TOOL_CALLS], then a JSON list, or names and JSON.",
        template_markers=("[TOOL_CALLS]", "[AVAILABLE_TOOLS]"),
    ),
    ParserEntry(
        "muse_glimmer",
        TOOLS + "muse_glimmer:MuseGlimmerParser",
        "Muse Glimmer: <atem:invoke> tags with a tag for each argument.",
        template_markers=("<atem:invoke name=",),
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
        template_markers=(("<|/tool|>", "functools["),),
    ),
    ParserEntry(
        "plamo3",
        TOOLS + "plamo3:Plamo3Parser",
        "PLaMo 3: name and JSON between markers.",
        template_markers=("plamo:begin_tool_request",),
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
        template_markers=("[func_name1(",),
    ),
    ParserEntry(
        "qwen3_coder",
        TOOLS + "qwen3_coder:Qwen3CoderParser",
        "Qwen3-Coder: <function=...> with a tag for each argument.",
        template_markers=("<tool_call>", "<function=", "<parameter="),
    ),
    ParserEntry(
        "qwen3_json",
        TOOLS + "hermes:HermesParser",
        "Qwen3: the format of Hermes.",
    ),
    ParserEntry(
        "qwen3_xml",
        TOOLS + "qwen3_coder:Qwen3CoderParser",
        "The same as qwen3_coder.",
    ),
    ParserEntry(
        "raw",
        "fllm_parsers.reasoning.identity:RawParser",
        "Any model: the output as it is, with special tokens.",
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
