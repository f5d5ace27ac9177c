"""The decoder against `CausalLM`: on a cuda device where there is one, else in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="the kernels are written in Triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

from support.tiny_models import save_model  # noqa: E402

from fllm.batching.runner import Row  # noqa: E402
from fllm.values import SamplingParams  # noqa: E402
from fllm_backends.checkpoints.architecture import read_architecture  # noqa: E402
from fllm_backends.torch.attention import AttentionBatch, KVCache  # noqa: E402
from fllm_backends.torch.checkpoint import Checkpoint  # noqa: E402
from fllm_backends.torch.cuda.decoder import CudaLM  # noqa: E402
from fllm_backends.torch.model import CausalLM, Decoder  # noqa: E402
from fllm_backends.torch.weights import CheckpointSource, load_weights  # noqa: E402

HALF = torch.bfloat16 if DEVICE.type == "cuda" else torch.float16  # the interpreter has no bfloat16 products
BLOCK_SIZE = 4
TWO = {"num_hidden_layers": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, with wide heads and biases": (
        "Llama",
        {"head_dim": 24, "attention_bias": True, "mlp_bias": True},
    ),
    "mistral, with a window": ("Mistral", {"sliding_window": 7}),
    "qwen3, with norms of heads": ("Qwen3", {"head_dim": 16}),
    "smollm3, with a layer without positions": (
        "SmolLM3",
        {"no_rope_layers": [1, 0], "pad_token_id": 0, "num_key_value_heads": 1},
    ),
}
PLAN = [
    ((0, 70), (0, 5), (0, 1)),
    ((70, 1), (5, 1), (1, 1)),
    ((71, 1), (0, 0), (2, 1)),
    ((72, 1), (0, 0), (0, 0)),
    ((0, 0), (6, 1), (3, 3)),
]
"""Chunks of three sequences, batch by batch: (start, count) of each."""


def plainly(function: Any) -> Any:
    return function


def run(model: Decoder, cache: KVCache, plan: Any = PLAN) -> list[torch.Tensor]:
    """The logits of each batch; the blocks of the sequences lie scattered."""
    sequences = [[(7 * i + 3 * s) % 96 for i in range(100)] for s in range(3)]
    shuffled = torch.randperm(75, generator=torch.Generator().manual_seed(3)).tolist()
    found = []
    for chunks in plan:
        rows = [
            Row(
                token_ids=ids, prompt_length=100, start=start, count=count, block_table=shuffled[s::3],
                sampling=SamplingParams(max_tokens=1), seed=0, sample=False,
            )
            for s, (ids, (start, count)) in enumerate(zip(sequences, chunks, strict=True))
            if count
        ]  # fmt: skip
        ids = torch.tensor([t for row in rows for t in row.token_ids[row.start : row.start + row.count]])
        batch = AttentionBatch(rows, BLOCK_SIZE, model.device)
        with torch.inference_mode():
            found.append(model.logits(model.forward(ids.to(model.device), batch, cache)).cpu())
    return found


def cache_for(model: Decoder, dtype: torch.dtype) -> KVCache:
    like = torch.empty(0, dtype=dtype, device=model.device)
    return KVCache(model.kv_shapes, 75, BLOCK_SIZE, like)


def load(directory: Path, dtype: torch.dtype, device: torch.device, **options: Any) -> Decoder:
    a = read_architecture(directory)
    weights = load_weights(a, CheckpointSource(Checkpoint(directory), device, dtype), lambda progress: None)
    if not options:
        return CausalLM(a, weights)
    record = plainly if device.type == "cpu" else None
    return CudaLM(a, weights, max_rows=3, max_positions=100, record=record, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_logits_equal_those_of_torch_itself(family: str, tmp_path: Path) -> None:
    name, changes = FAMILIES[family]
    save_model(name, tmp_path, **(TWO | changes))
    plain = load(tmp_path, torch.float32, torch.device("cpu"))
    ours = load(tmp_path, torch.float32, DEVICE, quantization="none")
    expected = run(plain, cache_for(plain, torch.float32))
    for found, wanted in zip(run(ours, cache_for(ours, torch.float32)), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_half_the_bits_are_as_near_to_float32_as_with_torch_itself(tmp_path: Path) -> None:
    save_model("Llama", tmp_path, **TWO)
    plain = load(tmp_path, torch.float32, torch.device("cpu"))
    expected = torch.cat(run(plain, cache_for(plain, torch.float32)))

    def miss(model: Decoder) -> torch.Tensor:
        return (torch.cat(run(model, cache_for(model, HALF))) - expected).norm() / expected.norm()

    ours = load(tmp_path, HALF, DEVICE, quantization="none")
    assert miss(ours) < 1.1 * miss(load(tmp_path, HALF, torch.device("cpu")))


def test_a_padded_graph_leaves_no_trace(tmp_path: Path) -> None:
    save_model("Llama", tmp_path, **TWO)
    ours = load(tmp_path, torch.float32, DEVICE, quantization="none")
    cache = cache_for(ours, torch.float32)
    run(ours, cache, PLAN[:1])
    before = [part.clone() for layer in range(2) for part in cache.layer(layer)]
    run(ours, cache, [((70, 1), (0, 0), (1, 1))])  # two rows in a graph of three
    for old, new in zip(before, (part for layer in range(2) for part in cache.layer(layer)), strict=True):
        assert (old != new).any(-1).any(-1).sum() == 2
