"""Every family of `support.model_families` against transformers' own forward pass, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.model_families import FAMILIES, save

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device
from fllm.errors import ModelError
from fllm.values import SamplingParams
from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.paged_attention import KernelAttention
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner
from fllm_backends.torch.transformers_lm.decoder import TransformersLM

BLOCK_SIZE = 4
TOLERANCE = 1e-4
FLOAT16_TOLERANCE = 5e-3
"""With keys and values in float16."""
PROMPTS = [
    [(7 * i * i + 3 * i + 11) % 140 + 12 for i in range(35)],
    [(5 * i * i + 13 * i + 29) % 140 + 12 for i in range(21)],
    [17, 99, 140],
]
GENERATED = 6
CHUNKS = [[35], [8, 1, 7, 5], [1, 2]]
"""How each prompt is divided."""
SERVED = [name for name, family in FAMILIES.items() if not family.refused]


class Sequence:
    """One greedy sequence in scattered blocks of its own."""

    def __init__(self, index: int) -> None:
        self.ids = list(PROMPTS[index])
        self.logprobs: list[float] = []
        self._chunks = list(CHUNKS[index])
        self._index, self._done = index, 0

    @property
    def ends(self) -> bool:
        return len(self.ids) == len(PROMPTS[self._index]) + GENERATED

    def row(self) -> Row:
        count = self._chunks.pop(0) if self._chunks else 1
        start, self._done = self._done, self._done + count
        prompt = len(PROMPTS[self._index])
        return Row(
            token_ids=self.ids, prompt_length=prompt, start=start, count=count,
            block_table=[3 * block + self._index for block in range(12)], slot=2 - self._index, seed=0,
            sampling=SamplingParams(max_tokens=GENERATED, temperature=0.0, logprobs=0, prompt_logprobs=0),
            sample=not self._chunks, prompt_logprobs=start < prompt - 1,
        )  # fmt: skip

    def add(self, result: Any) -> None:
        self.logprobs += [each.logprob for each in result.prompt_logprobs]
        if result.token_id is not None:
            self.ids.append(result.token_id)
            self.logprobs.append(result.logprob.logprob)


def load(directory: Path, **config: Any) -> TorchRunner:
    options = read_torch_config(
        BackendConfig(
            model=str(directory),
            quantization="none",
            model_impl="transformers",
            devices=(Device("cpu"),),
            options={"threads": "1"},
            **config,
        )
    )
    runner = TorchRunner(options, Device("cpu"), 3)
    runner.load(lambda _: None)
    runner.allocate(BLOCK_SIZE)
    return runner


def expected(model: Any, ids: list[int]) -> torch.Tensor:
    """The log-probability of each token but the first, by one forward pass over the whole sequence."""
    with torch.inference_mode():
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return logprobs[:-1]


@pytest.mark.parametrize("name", SERVED)
def test_texts_and_logprobs_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path)
    runner = load(tmp_path)
    sequences = [Sequence(index) for index in range(3)]
    while running := [each for each in sequences if not each.ends]:
        for sequence, result in zip(running, runner.execute([each.row() for each in running]), strict=True):
            sequence.add(result)
    for sequence, prompt in zip(sequences, PROMPTS, strict=True):
        logprobs = expected(model, sequence.ids)
        chosen = logprobs.gather(1, torch.tensor(sequence.ids[1:])[:, None])[:, 0]
        assert sequence.ids[len(prompt) :] == logprobs[len(prompt) - 1 :].argmax(-1).tolist()
        torch.testing.assert_close(torch.tensor(sequence.logprobs), chosen, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["gpt-oss", "llama4", "gemma3n", "qwen3.5"])
def test_the_kernels_attend_as_torch_does(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path)
    runner = load(tmp_path)
    decoder = runner.decoder
    assert isinstance(decoder, TransformersLM)
    kernels = KernelAttention(KernelThreads(2))
    runner._model = TransformersLM(decoder._model, kernels)
    assert runner.decoder.cache_dtype == torch.float16, "the kernels are used"
    runner.allocate(16)
    sequences = [Sequence(index) for index in range(3)]
    while running := [each for each in sequences if not each.ends]:
        for sequence, result in zip(running, runner.execute([each.row() for each in running]), strict=True):
            sequence.add(result)
    for sequence in sequences:
        logprobs = expected(model, sequence.ids)
        chosen = logprobs.gather(1, torch.tensor(sequence.ids[1:])[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(sequence.logprobs), chosen, rtol=0, atol=FLOAT16_TOLERANCE)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.refused])
def test_what_cannot_be_served_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    reason = FAMILIES[name].refused
    with pytest.raises(ModelError, match=f"can't be served: .*{reason}") as raised:
        load(tmp_path)
    assert "\n" not in raised.value.message
