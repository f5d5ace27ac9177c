"""A model directory without weights: one token for each byte, and three special ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bytes")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<s>", "<|end|>", "<|turn|>"])
    inner.save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text('{"max_position_embeddings": 64, "eos_token_id": 257}')
    recommended = {"temperature": 0.5, "top_k": 20, "top_p": 0.9}
    (directory / "generation_config.json").write_text(json.dumps(recommended))
    return directory
