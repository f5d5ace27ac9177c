"""The fused decoder computes what torch computes with the same rounded weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import save_model

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device
from fllm.errors import ConfigError
from fllm.models import locate
from fllm.tokens import Tokenizer
from fllm.values import Sampling
from fllm_backends.torch.architecture import read_architecture
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.checkpoint import Checkpoint
from fllm_backends.torch.fused import packing
from fllm_backends.torch.fused.decoder import FusedLM, runs_here
from fllm_backends.torch.model import CausalLM, Decoder, Linear, Weights
from fllm_backends.torch.options import read_options
from fllm_backends.torch.runner import TorchRunner
from fllm_backends.torch.weights import CheckpointSource, load_weights

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
BLOCK_SIZE = 4
CPU = torch.device("cpu")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama tied": ("Llama", {"tie_word_embeddings": True}),
    "mistral with a window": ("Mistral", {"sliding_window": 7}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5, "pad_token_id": 0}),
}

pytestmark = pytest.mark.skipif(not torch.cpu._is_avx2_supported(), reason="the kernels need AVX2")


def rounded(weights: Weights) -> Weights:
    """The same weights after packing and unpacking."""

    def linear(x: Linear) -> Linear:
        return Linear(torch.from_numpy(packing.unpack(packing.pack(x.weight.numpy()))), x.bias)

    layers = tuple(
        dataclasses.replace(
            layer,
            qkv=linear(layer.qkv),
            output=linear(layer.output),
            gate_up=linear(layer.gate_up),
            down=linear(layer.down),
        )
        for layer in weights.layers
    )
    return Weights(weights.embedding, layers, weights.norm, linear(Linear(weights.head)).weight)


def decoders(directory: Path, threads: int = 2) -> tuple[FusedLM, CausalLM]:
    architecture = read_architecture(directory)
    source = CheckpointSource(Checkpoint(directory), CPU, torch.float32)
    weights = load_weights(architecture, source, lambda progress: None)
    assert runs_here(architecture)
    fused = FusedLM(architecture, weights, threads=threads, max_positions=128)
    return fused, CausalLM(architecture, rounded(weights))


def logits(model: Decoder, batches: list[list[Row]]) -> torch.Tensor:
    """Of all new tokens of all batches, one batch after the other through one cache."""
    a = model.architecture
    cache = KVCache(len(a.layers), 64, BLOCK_SIZE, a.kv_heads, a.head_dim, like=torch.empty(0))
    found = []
    with torch.inference_mode():
        for rows in batches:
            ids = [i for row in rows for i in row.token_ids[row.start : row.start + row.count]]
            hidden = model.forward(torch.tensor(ids), AttentionBatch(rows, BLOCK_SIZE, CPU), cache)
            found.append(model.logits(hidden))
    return torch.cat(found)


def row(ids: list[int], start: int, count: int, table: list[int]) -> Row:
    return Row(
        token_ids=ids,
        prompt_length=len(ids),
        start=start,
        count=count,
        block_table=table,
        sampling=Sampling(max_tokens=1),
        seed=0,
        sample=True,
    )


def ids_of(seed: int, count: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(0, 96, count).tolist()
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_those_of_torch_with_the_rounded_weights(name: str, tmp_path: Path) -> None:
    family, changes = VARIANTS[name]
    save_model(family, tmp_path, **SIZES | changes)
    ids, table = ids_of(1, 23), [9, 3, 14, 7, 30, 1]
    chunks = [
        [row(ids, 0, 9, table)],
        [row(ids, 9, 10, table)],
        *([row(ids, i, 1, table)] for i in range(19, 23)),
    ]
    fused, plain = decoders(tmp_path)
    ours, theirs = logits(fused, chunks), logits(plain, chunks)
    assert (ours - theirs).abs().max() < 2e-3 * theirs.abs().max()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_is_the_same_to_the_bit_alone_and_among_others(tmp_path: Path, threads: int) -> None:
    save_model("Llama", tmp_path, **SIZES)
    fused, _ = decoders(tmp_path, threads)
    ids = ids_of(2, 12)
    mine = [row(ids, 0, 11, [1, 2, 3]), row(ids, 11, 1, [1, 2, 3])]
    alone = logits(fused, [[mine[0]], [mine[1]]])
    others = [row(ids_of(i, 9), 0, 9, [4 + 3 * i, 5 + 3 * i, 6 + 3 * i]) for i in range(5)]
    among = logits(fused, [[*others, mine[0]], [mine[1]]])
    assert torch.equal(alone, among[-12:])


def test_packing_rounds_each_weight_by_less_than_half_a_step() -> None:
    weights = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    packed = packing.pack(weights)
    steps = packed.scales.transpose(0, 2, 1).reshape(8, 2).repeat(packing.GROUP, axis=1)
    assert (np.abs(packing.unpack(packed) - weights) <= steps / 2 * 1.0001).all()


def test_a_group_of_zeros_stays_zero() -> None:
    assert not packing.unpack(packing.pack(np.zeros((4, 32), np.float32))).any()


@pytest.mark.parametrize(
    ("said", "kind"), [({}, "int8"), ({"quantization": "none"}, None), ({"dtype": "float32"}, None)]
)
def test_int8_is_what_a_cpu_computes_with_unless_it_is_refused(
    tmp_path: Path, said: dict[str, Any], kind: str | None
) -> None:
    save_model("Llama", tmp_path, **SIZES)
    runner = TorchRunner(read_options(BackendConfig(model=str(tmp_path), **said)), Device("cpu"), 4)
    assert runner.load(lambda progress: None).runtime["quantization"] == kind


def test_int8_that_cannot_be_had_is_refused(tmp_path: Path) -> None:
    save_model("Llama", tmp_path, intermediate_size=50)
    options = read_options(BackendConfig(model=str(tmp_path), quantization="int8"))
    with pytest.raises(ConfigError, match="multiples of 32"):
        TorchRunner(options, Device("cpu"), 4).load(lambda progress: None)


def test_the_real_model_keeps_its_mind() -> None:
    """Mean KL divergence from the fp32 model at most 0.01, and the same first choice nearly always."""
    runner = TorchRunner(read_options(BackendConfig(model=locate().location)), Device("cpu"), 1)
    card = runner.load(lambda progress: None)
    directory = Path(card.tokenizer)
    architecture = read_architecture(directory)
    source = CheckpointSource(Checkpoint(directory), CPU, torch.float32)
    weights = load_weights(architecture, source, lambda progress: None)
    text = (Path(__file__).parents[5] / "LICENSE").read_text()
    ids = Tokenizer.load(directory).encode(text, special=False)[:256]
    batches = [[row(ids, 0, len(ids), list(range(64)))]]
    exact = logits(CausalLM(architecture, weights), batches).log_softmax(-1)
    fused = FusedLM(architecture, weights, threads=2, max_positions=256)
    ours = logits(fused, batches).log_softmax(-1)
    assert (exact.exp() * (exact - ours)).sum(-1).mean() < 0.01
    assert (exact.argmax(-1) == ours.argmax(-1)).float().mean() > 0.95
