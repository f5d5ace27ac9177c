"""Write the tokenizer of a GGUF file as files that `ModelCard.tokenizer` refers to."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from fllm import ModelError
from fllm_numpy.gguf_file import GgufFile

CONTROL = 3
"""GGUF's type of control tokens, which are not text."""
DIGIT_BY_DIGIT = ("smollm", "starcoder")
PLAIN = ("gpt-2", "default")
PARTS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
"""Special tokens by their names in chat templates, with their names in GGUF."""


def write_tokenizer(file: GgufFile, directory: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``. Raise `ModelError` for an unsupported kind."""
    tokens, types = file.get("tokenizer.ggml.tokens"), file.get("tokenizer.ggml.token_type")
    merges = file.get("tokenizer.ggml.merges")
    kind, pre = file.get("tokenizer.ggml.model"), file.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in (*PLAIN, *DIGIT_BY_DIGIT) or not (tokens and types and merges):
        raise ModelError(f"the numpy device does not support tokenizers of kind {kind!r} ({pre})")
    tokenizer = Tokenizer(
        BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[(left, right) for left, _, right in (merge.partition(" ") for merge in merges)],
        )
    )
    digits = [pre_tokenizers.Digits(individual_digits=True)] if pre in DIGIT_BY_DIGIT else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(directory / "tokenizer.json"))
    named = {part: file.get(f"tokenizer.ggml.{key}_token_id") for part, key in PARTS.items()}
    config = {part: tokens[index] for part, index in named.items() if index is not None}
    if template := file.get("tokenizer.chat_template"):
        config["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
