"""The entries of the reasoning parsers, with what ``auto`` recognizes their models by."""

from __future__ import annotations

from fllm import ParserEntry

REASONING = "fllm_parsers.reasoning."

OPENED_IN_CHATML = r"<|im_start|>assistant\n<think>\n"
"""The end of a ChatML template that opens the reasoning: the model always reasons."""

OPENED = ("<｜Assistant｜>", OPENED_IN_CHATML)
"""What templates of models have that always reason."""

NOT_OPENED = (
    "{{'<｜Assistant｜>'}}",
    "{{ '<｜Assistant｜>' }}",
    "{{- '<｜Assistant｜>' -}}",
    "{{- '<｜Assistant｜>' }}",
)
"""Ends of templates of DeepSeek that do not open the reasoning, as those of V3 do not."""

REASONING_PARSERS = (
    ParserEntry(
        "apertus",
        REASONING + "apertus:ApertusParser",
        "Apertus: <|inner_prefix|>...<|inner_suffix|>.",
        template_markers=("<|inner_prefix|>", "<|inner_suffix|>"),
    ),
    ParserEntry(
        "apertus2509",
        REASONING + "apertus:ApertusParser",
        "The same as apertus.",
    ),
    ParserEntry(
        "cohere_command3",
        REASONING + "cohere:CohereCommand3Parser",
        "Cohere Command A and R7B: <|START_THINKING|>...<|END_THINKING|>.",
        template_markers=("<|START_THINKING|>", "<|START_RESPONSE|>"),
    ),
    ParserEntry(
        "cohere_command4",
        REASONING + "cohere:CohereCommand4Parser",
        "Later Cohere models: <|START_THINKING|>...<|END_THINKING|>.",
        template_markers=("<|START_THINKING|>", "<|START_TEXT|>"),
    ),
    ParserEntry(
        "deepseek_r1",
        REASONING + "deepseek_r1:DeepSeekR1Parser",
        "DeepSeek-R1 and similar models, QwQ: <think>...</think>.",
        template_markers=(OPENED, "</think>"),
        excluded_markers=(
            "enable_thinking is",
            "set enable_thinking",
            "not thinking is defined",
            "｜DSML｜",
            *NOT_OPENED,
        ),
    ),
    ParserEntry(
        "deepseek_v3",
        REASONING + "deepseek_v3:DeepSeekV3Parser",
        "DeepSeek-V3.1 and V3.2: <think> tags, if the request enables thinking.",
        template_markers=("<｜Assistant｜>", "</think>", "not thinking is defined"),
        excluded_markers=("tool_calls>",),
    ),
    ParserEntry(
        "deepseek_v32",
        REASONING + "deepseek_v3:DeepSeekV3Parser",
        "DeepSeek-V3.2: the same as deepseek_v3.",
    ),
    ParserEntry(
        "deepseek_v4",
        REASONING + "deepseek_v3:DeepSeekV4Parser",
        "DeepSeek-V4: <think> tags, or up to a call.",
        template_markers=("<｜Assistant｜>", "</think>", "｜DSML｜", "tool_calls>"),
    ),
    ParserEntry(
        "deepseek_v41",
        REASONING + "deepseek_v3:DeepSeekV4Parser",
        "DeepSeek-V4.1: the same as deepseek_v4.",
    ),
    ParserEntry(
        "ernie45",
        REASONING + "ernie45:Ernie45Parser",
        "ERNIE 4.5 Thinking: up to </think>, then <response>...</response>.",
    ),
    ParserEntry(
        "exaone4",
        REASONING + "exaone4:Exaone4Parser",
        "EXAONE 4: <think> tags, if enable_thinking is set.",
        template_markers=("[|assistant|]", "</think>", "enable_thinking"),
    ),
    ParserEntry(
        "gemma4",
        REASONING + "gemma4:Gemma4Parser",
        "Gemma 4: <|channel>thought...<channel|>.",
        template_markers=("<|channel>", "<channel|>"),
    ),
    ParserEntry(
        "gigachat35",
        REASONING + "ling3:GigaChat35Parser",
        "GigaChat 3.5: <think> tags, if reasoning is set.",
        template_markers=("｜GCML｜", "<think>"),
    ),
    ParserEntry(
        "glm45",
        REASONING + "glm45:Glm45Parser",
        "GLM-4.5 to 4.7: <think>...</think>.",
        template_markers=("[gMASK]", "<|assistant|>", "</think>"),
    ),
    ParserEntry(
        "glm47",
        REASONING + "glm45:Glm45Parser",
        "The same as glm45.",
    ),
    ParserEntry(
        "granite",
        REASONING + "granite:GraniteParser",
        "Granite 3.2: Here is my thought process: ... Here is my response: ...",
        template_markers=("Here is my thought process:", "Here is my response:"),
    ),
    ParserEntry(
        "granite_thinking_parser",
        REASONING + "granite:GraniteThinkingParser",
        "Granite's thinking models: <think>...</think>.",
    ),
    ParserEntry("holo2", REASONING + "qwen3:Holo2Parser", "Holo2: <think>...</think>."),
    ParserEntry(
        "hunyuan_a13b",
        REASONING + "hunyuan_a13b:HunyuanA13bParser",
        "Hunyuan-A13B: <think>...</think>, then <answer>...</answer>.",
        template_markers=("<think>", "<answer>", ("<|extra_0|>", "<｜hy_Assistant｜>")),
    ),
    ParserEntry(
        "hy_v3",
        REASONING + "hy_v3:HyV3Parser",
        "Tencent Hy3: <think> tags, or up to a call.",
        template_markers=(("<think>", "<think{}>"), "<｜hy_Assistant", ("<tool_sep>", "<tool_sep{}>")),
    ),
    ParserEntry(
        "hy_v4",
        REASONING + "hy_v3:HyV3Parser",
        "Tencent Hy4: the same as hy_v3.",
    ),
    ParserEntry(
        "identity",
        REASONING + "identity:IdentityParser",
        "No reasoning: all of the output is the answer.",
    ),
    ParserEntry(
        "kimi_k2",
        REASONING + "kimi_k2:KimiK2Parser",
        "Kimi K2 Thinking: <think> tags, or up to its calls.",
        template_markers=("<|im_assistant|>", "</think>"),
    ),
    ParserEntry(
        "kimi_k3",
        REASONING + "kimi_k3:KimiK3Parser",
        "Kimi K3: an element of reasoning, or up to its calls.",
        template_markers=("<|open|>", "<|close|>", "<|sep|>", "think"),
    ),
    ParserEntry(
        "ling3",
        REASONING + "ling3:Ling3Parser",
        "Ling 3: <think> tags, if the request enables thinking.",
    ),
    ParserEntry("mimo", REASONING + "nemotron_v3:NemotronV3Parser", "MiMo: <think> tags, or up to a call."),
    ParserEntry(
        "minimax_m2",
        REASONING + "minimax_m2:MiniMaxM2Parser",
        "MiniMax-M2: up to </think> or a call.",
        template_markers=("<minimax:tool_call>", "</think>"),
        excluded_markers=("<mm:think>",),
    ),
    ParserEntry(
        "minicpmv",
        REASONING + "minicpmv:MiniCPMVParser",
        "MiniCPM5 and MiniCPM-V: <think> tags.",
        template_markers=('<function name="', '<param name="', "</think>"),
    ),
    ParserEntry(
        "minimax_m2_append_think",
        REASONING + "identity:MiniMaxM2AppendThinkParser",
        "MiniMax-M2: all of the output, with <think> before it.",
    ),
    ParserEntry(
        "minimax_m3",
        REASONING + "minimax_m3:MiniMaxM3Parser",
        "MiniMax-M3: <mm:think>...</mm:think>, or up to a call.",
        template_markers=("<mm:think>", "</mm:think>"),
    ),
    ParserEntry(
        "mistral",
        REASONING + "mistral:MistralParser",
        "Magistral: [THINK]...[/THINK].",
        template_markers=("[THINK]", "[/THINK]"),
    ),
    ParserEntry(
        "muse_glimmer",
        REASONING + "muse_glimmer:MuseGlimmerParser",
        "Muse Glimmer: messages to itself.",
        template_markers=("<atem:invoke name=", "to=self<|message|>"),
    ),
    ParserEntry(
        "nemotron_v3",
        REASONING + "nemotron_v3:NemotronV3Parser",
        "Nemotron 3: <think> tags, or up to a call.",
    ),
    ParserEntry(
        "olmo3",
        REASONING + "olmo3:Olmo3Parser",
        "OLMo 3 Think: <think>...</think>.",
        template_markers=("You are Olmo", "<think>"),
    ),
    ParserEntry(
        "openai_gptoss",
        REASONING + "openai_gptoss:OpenAIGptOssParser",
        "gpt-oss: the analysis channel of the harmony format.",
        template_markers=("<|start|>", "<|channel|>analysis", "<|message|>"),
    ),
    ParserEntry(
        "plamo3",
        REASONING + "plamo3:Plamo3Parser",
        "PLaMo 3: <|plamo:begin_think:plamo|>, or up to a call.",
        template_markers=("plamo:begin_think",),
    ),
    ParserEntry(
        "poolside_v1",
        REASONING + "deepseek_v3:DeepSeekV3Parser",
        "Poolside Laguna: <think> tags, if the request enables thinking.",
        template_markers=("<assistant>", "</think>", "enable_thinking"),
    ),
    ParserEntry(
        "qwen3",
        REASONING + "qwen3:Qwen3Parser",
        "Qwen3: <think> tags, or up to a call.",
        template_markers=("<|im_start|>", "<think>", "</think>", "enable_thinking"),
        excluded_markers=('<function name="', "if not enable_thinking -%}"),
    ),
    ParserEntry(
        "raw",
        REASONING + "identity:RawParser",
        "Any model: the output as it is, with special tokens.",
    ),
    ParserEntry(
        "seed_oss",
        REASONING + "seed_oss:SeedOssParser",
        "Seed-OSS: <seed:think>...</seed:think>.",
        template_markers=("<seed:think>", "</seed:think>"),
    ),
    ParserEntry(
        "step3",
        REASONING + "step3:Step3Parser",
        "Step 3: up to </think>.",
        template_markers=("<|BOT|>", "<think>"),
    ),
    ParserEntry(
        "step3p5",
        REASONING + "step3:Step3p5Parser",
        "Step 3.5: up to </think> or a call.",
        template_markers=(OPENED, "</think>", "<|im_start|>", "<function="),
        excluded_markers=("enable_thinking",),
    ),
)
"""An entry for each name of a reasoning parser."""
