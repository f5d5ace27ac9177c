"""Recorded output of larger models, token by token, which ``scripted_plugin.py`` replays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

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


def write_script(script: Script, directory: Path) -> None:
    """Write a model directory: a byte-level tokenizer with the script's tokens, and the script."""
    encode = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = [encode.pre_tokenize_str(token)[0][0] for token in script.tokens[:-1]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*alphabet, *words]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = encode
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(script.tokens[-1], special=True)])
    tokenizer.save(str(directory / "tokenizer.json"))
    ids = [vocabulary[word] for word in words] + [tokenizer.token_to_id(script.tokens[-1])]
    settings = {"chat_template": script.template, "eos_token": script.tokens[-1]}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "config.json").write_text("{}")
    (directory / "script.json").write_text(json.dumps(ids))
