"""Dense classes of transformers on packed weights: a row has the same result to the bit in any batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.model_families import save
from torch import Tensor

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device
from fllm.values import SamplingParams
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.model import Decoder
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner

PROMPTS = [[(7 * i * i + 3 * i + 11 + k) % 140 + 12 for i in range(40 + 13 * k)] for k in range(3)]
BLOCKS = 6


def run(decoder: Decoder, *batches: list[tuple[int, int, int]]) -> list[Tensor]:
    """The logits of the last of some batches: index of a prompt, start and end."""
    like = torch.empty(0, dtype=decoder.cache_dtype)
    cache = KVCache(decoder.kv_shapes, BLOCKS * len(PROMPTS), 16, like=like)
    for batch in batches:
        rows = [
            Row(
                token_ids=PROMPTS[k], prompt_length=len(PROMPTS[k]), start=start, count=end - start, seed=0,
                block_table=[len(PROMPTS) * block + k for block in range(BLOCKS)], sample=True,
                sampling=SamplingParams(max_tokens=1),
            )
            for k, start, end in batch
        ]  # fmt: skip
        ids = torch.tensor([token for k, start, end in batch for token in PROMPTS[k][start:end]])
        with torch.inference_mode():
            hidden = decoder.forward(ids, AttentionBatch(rows, 16, decoder.device), cache)
            ends = torch.cat([part[-1:] for part in hidden.split([row.count for row in rows])])
            logits = decoder.logits(ends)
    return list(logits)


@pytest.mark.parametrize("name", ["stablelm", "gpt2"])
def test_alone_in_a_batch_and_in_chunks(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    config = BackendConfig(model=str(tmp_path), model_impl="transformers", options={"threads": "2"})
    runner = TorchRunner(read_torch_config(config), Device("cpu"), 3)
    runner.load(lambda _: None)
    ends = [(k, len(prompt) - 1, len(prompt)) for k, prompt in enumerate(PROMPTS)]
    prefills = [(k, 0, end) for k, end, _ in ends]
    chunks = [[(k, 0, 17) for k in range(3)], [(k, 17, end) for k, end, _ in ends]]
    together, chunked = run(runner.decoder, prefills, ends), run(runner.decoder, *chunks, ends)
    for k in range(3):
        [alone] = run(runner.decoder, [prefills[k]], [ends[k]])
        assert torch.equal(alone, together[k])
        assert torch.equal(alone, chunked[k])
