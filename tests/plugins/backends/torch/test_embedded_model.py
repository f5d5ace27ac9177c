"""The embedded model, as we convert it, says what transformers says."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device
from fllm.model.source import locate
from fllm.values import ModelCard, SamplingParams
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner

TOKENS = 16
BLOCK_SIZE, BLOCKS = 16, 6
QUESTIONS = [
    "What is the capital of France?",
    "Count from one to ten.",
    "Translate 'good morning' to Spanish.",
    "Why is the sky blue?",
    "Write a Python function that adds two numbers.",
    "Tell me a joke about cats.",
    "Summarise the story of Cinderella.",
    "日本の首都はどこですか？",
]


@pytest.fixture(scope="module")
def runner() -> TorchRunner:
    options = read_torch_config(BackendConfig(model=locate().location, quantization="none"))
    return TorchRunner(options, Device("cpu"), len(QUESTIONS))


@pytest.fixture(scope="module")
def card(runner: TorchRunner) -> ModelCard:
    card = runner.load(lambda progress: None)
    assert runner.allocate(BLOCK_SIZE) >= BLOCKS * len(QUESTIONS)
    return card


@pytest.fixture(scope="module")
def prompts(card: ModelCard) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(Path(card.tokenizer) / "tokenizer.json"))
    chat = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return [tokenizer.encode(chat.format(question)).ids for question in QUESTIONS]


def greedy(runner: TorchRunner, prompts: list[list[int]], eos: tuple[int, ...]) -> list[list[int]]:
    """All prompts in one batch, each in chunks of its own size, then token by token."""
    texts = [list(prompt) for prompt in prompts]
    computed = [0] * len(texts)
    sampling = SamplingParams(max_tokens=TOKENS, temperature=0)
    while rows := {
        index: Row(
            token_ids=text, prompt_length=len(prompts[index]), start=computed[index], count=count,
            block_table=range(BLOCKS * index, BLOCKS * index + BLOCKS), sampling=sampling, seed=0,
            sample=computed[index] + count == len(text),
        )
        for index, text in enumerate(texts)
        if text[-1] not in eos and len(text) < len(prompts[index]) + TOKENS
        for count in [min(len(text) - computed[index], 7 + index)]
    }:  # fmt: skip
        for index, result in zip(rows, runner.execute(list(rows.values())), strict=True):
            computed[index] += rows[index].count
            if result.token_id is not None:
                texts[index].append(result.token_id)
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]


def theirs(prompts: list[list[int]], eos: tuple[int, ...]) -> list[list[int]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LlamaForCausalLM

        file = Path(locate().location)
        model = LlamaForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        output = model.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=TOKENS, eos_token_id=list(eos)
        )
    return [_until(answer, eos) for answer in output[:, longest:].tolist()]


def _until(answer: list[int], eos: tuple[int, ...]) -> list[int]:
    ends = [place for place, token in enumerate(answer) if token in eos]
    return answer[: ends[0] + 1] if ends else answer


def test_greedy_answers_equal_those_of_transformers(
    runner: TorchRunner, card: ModelCard, prompts: list[list[int]]
) -> None:
    ours = greedy(runner, prompts, card.eos_token_ids)
    assert ours == theirs(prompts, card.eos_token_ids)
    assert len({tuple(answer) for answer in ours}) == len(QUESTIONS)


def test_the_card_of_the_embedded_model(card: ModelCard) -> None:
    assert card.max_model_len == 8192
    assert 2 in card.eos_token_ids
    assert card.runtime["vocab_size"] == 49152
