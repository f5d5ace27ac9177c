"""The entries of the reasoning parsers, with what ``auto`` recognizes their models by."""

from __future__ import annotations

from fllm import ParserEntry

REASONING = "fllm_parsers.reasoning."

OPENED_IN_CHATML = r"<|im_start|>assistant\n<think>\n"
"""The end of a ChatML template that opens the reasoning: the model always reasons."""

REASONING_PARSERS = (
    ParserEntry(
        "deepseek_r1",
        REASONING + "deepseek_r1:DeepSeekR1Parser",
        "DeepSeek-R1 and similar models, QwQ: <think>...</think>.",
        template_markers=(("<｜Assistant｜>", OPENED_IN_CHATML), "</think>"),
        excluded_markers=("not thinking is defined",),
    ),
    ParserEntry(
        "deepseek_v3",
        REASONING + "deepseek_v3:DeepSeekV3Parser",
        "DeepSeek-V3.1 and V3.2: <think> tags, if the request enables thinking.",
        template_markers=("<｜Assistant｜>", "</think>", "not thinking is defined"),
    ),
    ParserEntry(
        "deepseek_v4",
        REASONING + "deepseek_v3:DeepSeekV4Parser",
        "DeepSeek-V4: <think> tags, or up to a call.",
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
        "glm45",
        REASONING + "glm45:Glm45Parser",
        "GLM-4.5 to 4.7: <think>...</think>.",
        template_markers=("[gMASK]", "<|assistant|>", "</think>"),
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
        "kimi_k2",
        REASONING + "kimi_k2:KimiK2Parser",
        "Kimi K2 Thinking: <think> tags, or up to its calls.",
        template_markers=("<|im_assistant|>", "</think>"),
    ),
    ParserEntry("mimo", REASONING + "nemotron_v3:NemotronV3Parser", "MiMo: <think> tags, or up to a call."),
    ParserEntry(
        "minimax_m2",
        REASONING + "minimax_m2:MiniMaxM2Parser",
        "MiniMax-M2: up to </think> or a call.",
        template_markers=("<minimax:tool_call>", "</think>"),
    ),
    ParserEntry(
        "mistral",
        REASONING + "mistral:MistralParser",
        "Magistral: [THINK]...[/THINK].",
        template_markers=("[THINK]", "[/THINK]"),
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
        "qwen3",
        REASONING + "qwen3:Qwen3Parser",
        "Qwen3: <think> tags, or up to a call.",
        template_markers=("<|im_start|>", "<think>", "</think>", "enable_thinking"),
        excluded_markers=(OPENED_IN_CHATML,),
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
    ParserEntry("step3p5", REASONING + "step3:Step3p5Parser", "Step 3.5: up to </think> or a call."),
)
"""An entry for each name of a reasoning parser."""
