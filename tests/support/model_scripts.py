"""Recorded output of larger models, token by token, which ``scripted_plugin.py`` replays."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SCRIPTED_PLUGIN = Path(__file__).with_name("scripted_plugin.py")

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content or '' }}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}<|assistant|>"
)


@dataclass(frozen=True)
class Script:
    """Tokens that the backend emits for any prompt; the last one is the end-of-sequence token."""

    name: str
    tokens: tuple[str, ...]
    template: str = TEMPLATE


# Llama 3.1's tokens for the call in the README's example.
LLAMA31_WEATHER = Script(
    "llama31",
    (
        '{"', "name", '":', ' "', "get", "_weather", '",', ' "', "parameters", '":', ' {"', "location", '":',
        ' "', "San", " Francisco", ",", " CA", '",', ' "', "unit", '":', ' "', "f", "ahrenheit", '"}}',
        "<|eot_id|>",
    ),
)  # fmt: skip

# DeepSeek-R1-Distill-Llama-8B: its template ends the prompt with "<think>\n".
DEEPSEEK_R1 = Script(
    "deepseek_r1",
    (
        "First", ",", " compare", " ", "9", ".", "11", " and", " ", "9", ".", "8", ":", " ", "0", ".", "80",
        " is", " more", " than", " ", "0", ".", "11", ".\n", "</think>", "\n\n", "9", ".", "8", " is",
        " greater", ".", "<｜end▁of▁sentence｜>",
    ),
    template=TEMPLATE + "<think>\n",
)  # fmt: skip

# A reasoning model that then calls two tools.
REASONS_THEN_CALLS = Script(
    "both",
    (
        "<think>", "\n", "The", " user", " wants", " both", " ☀", "️", ".\n", "</think>", "\n\n",
        '{"', "name", '":', ' "', "get", "_weather", '",', ' "', "parameters", '":', ' {"', "location", '":',
        ' "', "서울", '"}}', ";", " ", '{"', "name", '":', ' "', "now", '",', ' "', "parameters", '":',
        " {}}", "<|eot_id|>",
    ),
)  # fmt: skip


# Qwen's format: ChatML, tools between <tools> tags, calls between <tool_call> tags, results as the user's.
QWEN3_TEMPLATE = """
{%- if tools %}<|im_start|>system
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role not in ["system", "user", "assistant", "tool"] %}{{ raise_exception("unknown role") }}
{%- endif %}
{%- if message.role == "tool" %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content or "" }}
{%- for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
QWEN3_OPTIONS = ("--tool-call-parser", "hermes", "--reasoning-parser", "qwen3")
QWEN3_END = "<|im_end|>"


@dataclass(frozen=True)
class Turn:
    """What a model generates next in a conversation."""

    tokens: tuple[str, ...]
    after: str = ""
    """Text that the prompt must have, such as the result of a tool."""


def qwen3_output(
    text: str = "", *calls: tuple[str, Mapping[str, Any]], reasoning: str = ""
) -> tuple[str, ...]:
    """Return the tokens of a turn in Qwen3's format: reasoning, text and calls (name, arguments)."""
    bodies = (json.dumps({"name": name, "arguments": arguments}) for name, arguments in calls)
    parts = [text, *(f"<tool_call>\n{body}\n</tool_call>" for body in bodies)]
    output = f"<think>\n{reasoning}\n</think>\n\n" + "\n".join(part for part in parts if part)
    return (*re.findall(r"</?\w+>|\s*\w+|\s+|[^\w\s]+", output), QWEN3_END)


def write_script(script: Script, directory: Path) -> None:
    """Write a model directory: a byte-level tokenizer with the script's tokens, and the script."""
    [ids] = _write_model([script.tokens], script.template, directory)
    (directory / "script.json").write_text(json.dumps(ids))


def write_conversations(
    conversations: Mapping[str, Sequence[Turn]], plain: tuple[str, ...], directory: Path
) -> None:
    """Write a model directory with the turns of conversations in Qwen3's format.

    A conversation is named by a tool that only it has. ``plain`` is the output for prompts without tools.
    """
    outputs = [plain, *(turn.tokens for turns in conversations.values() for turn in turns)]
    ids = iter(_write_model(outputs, QWEN3_TEMPLATE, directory))
    script = {
        "plain": next(ids),
        "conversations": {
            tool: [(turn.after, next(ids)) for turn in turns] for tool, turns in conversations.items()
        },
    }
    (directory / "script.json").write_text(json.dumps(script))


def _write_model(outputs: Sequence[tuple[str, ...]], template: str, directory: Path) -> list[list[int]]:
    """Write a tokenizer with the tokens of these outputs; return their ids."""
    encode = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = [[encode.pre_tokenize_str(token)[0][0] for token in tokens[:-1]] for tokens in outputs]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = dict.fromkeys([*alphabet, *(word for each in words for word in each)])
    vocabulary = {word: i for i, word in enumerate(known)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = encode
    tokenizer.decoder = decoders.ByteLevel()
    [end] = {tokens[-1] for tokens in outputs}
    tokenizer.add_special_tokens([AddedToken(end, special=True)])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"chat_template": template, "eos_token": end}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "config.json").write_text("{}")
    return [[*(vocabulary[word] for word in each), tokenizer.token_to_id(end)] for each in words]
