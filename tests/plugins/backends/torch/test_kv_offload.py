"""Blocks of real decoders that come back from RAM and from disk: the same text and log-probabilities."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.model_families import save
from support.tiny_models import save_model

from fllm import BackendConfig, BackendContext, GenerateRequest, SamplingParams
from fllm.interfaces import Backend
from fllm.testing import echo_model
from fllm_backends.torch.backend import torch_backend

PROMPT = [(7 * i * i + 3) % 80 + 12 for i in range(50)]
OTHER = [(5 * i * i + 1) % 80 + 12 for i in range(115)]
numbers = itertools.count()


class Engine:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def generate(self, token_ids: list[int]) -> tuple[list[int], list[float], int | None]:
        """Return the greedy tokens, their log-probabilities, and how many prompt tokens were cached."""
        sampling = SamplingParams(max_tokens=6, temperature=0.0, logprobs=0, ignore_eos=True)
        outputs = [
            output
            async for output in self.backend.generate(
                GenerateRequest(str(next(numbers)), token_ids, sampling)
            )
        ]
        logprobs = [entry.logprob for output in outputs for entry in output.logprobs or ()]
        return [t for output in outputs for t in output.token_ids], logprobs, outputs[0].cached_tokens

    async def hits(self, tier: str) -> int:
        return (await self.backend.status()).cache_tiers[tier].hits


@asynccontextmanager
async def engine(directory: Path, **config: Any) -> AsyncIterator[Engine]:
    options = {"threads": "1", "kv_cache_memory": config.pop("memory", "8MB")}
    backend = torch_backend(BackendConfig(model=str(directory), options=options, **config), BackendContext())
    await backend.start()
    try:
        yield Engine(backend)
    finally:
        await backend.stop()


def native(directory: Path) -> None:
    save_model("Llama", directory)


def transformers(family: str) -> Callable[[Path], None]:
    return lambda directory: save(family, echo_model(directory))


DECODERS = {
    "native": (native, {"quantization": "none", "memory": "52KB"}),
    "bfloat16": (native, {"dtype": "bfloat16", "memory": "26KB"}),
    "transformers": (
        transformers("deepseek-v3"),
        {"model_impl": "transformers", "quantization": "none", "memory": "720KB"},
    ),
}
"""The last one has keys and values of different sizes."""


@pytest.mark.parametrize("decoder", DECODERS)
def test_text_and_logprobs_are_the_same_from_ram_and_from_disk(decoder: str, tmp_path: Path) -> None:
    write, config = DECODERS[decoder]
    model, blocks = tmp_path / "model", str(tmp_path / "blocks")
    model.mkdir()
    write(model)

    async def run() -> None:
        async with engine(model, **config) as plain:
            cold = await plain.generate(PROMPT)
            hot = await plain.generate(PROMPT)
        assert (cold[2], hot[2]) == (0, 48)
        async with engine(model, kv_cache_dir=blocks, kv_offload_memory=1 << 22, **config) as running:
            assert (await running.generate(PROMPT))[0] == cold[0]
            assert (await running.backend.status()).kv_blocks == 8
            await running.generate(OTHER)
            from_ram = await running.generate(PROMPT)
            assert await running.hits("ram") >= 48
        async with engine(model, kv_cache_dir=blocks, **config) as running:
            from_disk = await running.generate(PROMPT)
            assert await running.hits("disk") == 48
        assert from_ram == from_disk == hot

    asyncio.run(run())


def test_other_weights_and_another_numeric_path_do_not_read_the_blocks(tmp_path: Path) -> None:
    model, other, blocks = tmp_path / "model", tmp_path / "other", str(tmp_path / "blocks")
    native(model)
    save_model("Llama", other, initializer_range=0.3)

    async def run() -> None:
        async with engine(model, kv_cache_dir=blocks, quantization="none") as running:
            await running.generate(PROMPT)
        for directory, config in ((other, {"quantization": "none"}), (model, {"dtype": "bfloat16"})):
            async with engine(directory, kv_cache_dir=blocks, **config) as running:
                assert (await running.generate(PROMPT))[2] == 0
        copied = tmp_path / "copied"
        copied.mkdir()
        for file in model.iterdir():
            (copied / file.name).write_bytes(file.read_bytes())
        async with engine(copied, kv_cache_dir=blocks, quantization="none") as running:
            assert (await running.generate(PROMPT))[2] == 48
        (copied / "preprocessor_config.json").write_text("{}")
        async with engine(copied, kv_cache_dir=blocks, quantization="none") as running:
            assert (await running.generate(PROMPT))[2] == 0

    asyncio.run(run())
