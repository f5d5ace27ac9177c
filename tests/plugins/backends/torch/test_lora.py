"""LoRA adapters against PEFT's merged weights, through the scheduler."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from support.lora_adapters import save_adapter
from support.tiny_models import save_model

from fllm.config import BackendConfig, LoraAdapter
from fllm.interfaces import BackendContext
from fllm.values import GenerateRequest, SamplingParams
from fllm_backends.torch.backend import torch_backend

PROMPTS = [[5, 17, 40, 8, 22, 91, 3], [60, 61, 62], [9, 33, 71, 12, 5, 5, 8, 44, 80, 2, 19]]
TOLERANCE = 1e-4


class Checkpoints:
    """A model in a directory, three adapters, and transformers' models: the base and each merged one."""

    def __init__(self, root: Path, family: str = "Llama", **changes: Any) -> None:
        self.directory = root / "model"
        base = save_model(family, self.directory, **changes)
        (self.directory / "tokenizer.json").write_text("{}")
        self.models = [base]
        self.adapters = []
        configs = [
            {},
            {"r": 8, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
            {
                "target_modules": r".*\.(o_proj|down_proj|up_proj)",
                "rank_pattern": {"down_proj": 2},
                "alpha_pattern": {"layers.1.self_attn.o_proj": 32},
            },
        ]
        for number, config in enumerate(configs, 1):
            path = root / f"adapter{number}"
            self.models.append(save_adapter(base, path, seed=number, **config))
            self.adapters.append(LoraAdapter(id=number, name=f"adapter{number}", path=str(path)))

    @torch.inference_mode()
    def expected(self, adapter: int, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
        """Return the greedy tokens after a prompt and their log-probabilities."""
        ids = list(prompt)
        logprobs = []
        for _ in range(count):
            logits = self.models[adapter](torch.tensor([ids])).logits[0, -1]
            ids.append(int(logits.argmax()))
            logprobs.append(float(logits.log_softmax(-1)[ids[-1]]))
        return ids[len(prompt) :], logprobs


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("lora"))


class Engine:
    """A started backend."""

    def __init__(self, checkpoints: Checkpoints, **config: Any) -> None:
        settings = {
            "model": str(checkpoints.directory),
            "quantization": "none",
            "enable_lora": True,
            "lora_modules": tuple(checkpoints.adapters),
        }
        self.backend = torch_backend(BackendConfig(**(settings | config)), BackendContext())
        self._count = 0

    async def __aenter__(self) -> Engine:
        await self.backend.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.backend.stop()

    async def generate(
        self, adapter: int, prompt: list[int], count: int = 8
    ) -> tuple[list[int], list[float]]:
        self._count += 1
        sampling = SamplingParams(max_tokens=count, temperature=0, logprobs=0, ignore_eos=True)
        request = GenerateRequest(f"r{self._count}", prompt, sampling, adapter=adapter)
        ids, logprobs = [], []
        async with aclosing(self.backend.generate(request)) as outputs:
            async for output in outputs:
                ids += output.token_ids
                logprobs += [each.logprob for each in output.logprobs or ()]
        return ids, logprobs


def check(checkpoints: Checkpoints, adapter: int, prompt: list[int], result: Any) -> None:
    ids, logprobs = checkpoints.expected(adapter, prompt, len(result[0]))
    assert result[0] == ids
    assert result[1] == pytest.approx(logprobs, abs=TOLERANCE)


def test_a_batch_of_all_adapters_and_none_equals_the_merged_models(checkpoints: Checkpoints) -> None:
    async def run() -> None:
        async with Engine(checkpoints) as engine:
            cases = [(adapter, prompt) for prompt in PROMPTS for adapter in range(4)]
            results = await asyncio.gather(*(engine.generate(*case) for case in cases))
            for (adapter, prompt), result in zip(cases, results, strict=True):
                check(checkpoints, adapter, prompt, result)

    asyncio.run(run())
