"""The fused decoder computes what torch computes with the same rounded weights."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.packed_weights import unpack
from support.paths import ROOT
from support.tiny_models import save_model

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device
from fllm.errors import ConfigError
from fllm.model.source import locate
from fllm.tokenizer import Tokenizer
from fllm.values import SamplingParams
from fllm_backends.checkpoints.architecture import Architecture, read_architecture
from fllm_backends.torch import logit_masks
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.checkpoint import Checkpoint
from fllm_backends.torch.fused import packing
from fllm_backends.torch.fused.decoder import FusedLM, is_supported
from fllm_backends.torch.fused.formats import GROUP
from fllm_backends.torch.model import CausalLM, Decoder, Linear, Mlp, Weights
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner
from fllm_backends.torch.weight_matrix import WeightMatrix, as_matrix
from fllm_backends.torch.weights import CheckpointSource, load_weights

SIZES = {"hidden_size": 128, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
BLOCK_SIZE = 16
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


class Coarse(Linear):
    """Rounds what it is given to 8 bits in groups."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        groups = x.reshape(*x.shape[:-1], -1, GROUP)
        steps = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
        return super().__call__(((groups / steps).round() * steps).reshape(x.shape))


class PackedLM(CausalLM):
    """Packed weights on torch's own operations, and, if wanted, the activations rounded as in the kernels."""

    def __init__(self, architecture: Architecture, weights: Weights, *, coarse: bool) -> None:
        kind = Coarse if coarse else Linear
        layers = [
            dataclasses.replace(
                layer,
                qkv=Linear(repacked(layer.qkv.weight), layer.qkv.bias),
                output=kind(repacked(layer.output.weight), layer.output.bias),
                mlp=Mlp(
                    Linear(repacked(layer.mlp.gate_up.weight), layer.mlp.gate_up.bias),
                    kind(repacked(layer.mlp.down.weight), layer.mlp.down.bias),
                ),
            )
            for layer in weights.layers
        ]
        ends = repacked(weights.embedding), repacked(weights.head)
        super().__init__(architecture, Weights(ends[0], layers, weights.norm, ends[1]))


def repacked(weight: torch.Tensor | WeightMatrix) -> torch.Tensor:
    return torch.from_numpy(unpack(packing.pack(as_matrix(weight))))


def loaded(directory: Path) -> tuple[Architecture, Weights]:
    architecture = read_architecture(directory)
    source = CheckpointSource(Checkpoint(directory), CPU, torch.float32)
    return architecture, load_weights(architecture, source, lambda progress: None)


def fused_lm(directory: Path, threads: int = 2) -> FusedLM:
    architecture, weights = loaded(directory)
    assert is_supported(architecture)
    return FusedLM(architecture, weights, threads=threads, max_positions=128)


def logits(model: Decoder, batches: list[list[Row]]) -> torch.Tensor:
    """Of all new tokens of all batches, one batch after the other through one cache."""
    cache = KVCache(model.kv_shapes, 64, BLOCK_SIZE, like=torch.empty(0, dtype=model.cache_dtype))
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
        sampling=SamplingParams(max_tokens=1),
        seed=0,
        sample=True,
    )


def ids_of(seed: int, count: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(0, 96, count).tolist()
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_miss_those_of_torch_by_what_rounding_makes_of_them(name: str, tmp_path: Path) -> None:
    family, changes = VARIANTS[name]
    save_model(family, tmp_path, **SIZES | changes)
    ids, table = ids_of(1, 53), [9, 3, 14, 7]
    chunks = [
        [row(ids, 0, 19, table)],
        [row(ids, 19, 30, table)],
        *([row(ids, i, 1, table)] for i in range(49, 53)),
    ]
    exact, coarse = (logits(PackedLM(*loaded(tmp_path), coarse=coarse), chunks) for coarse in (False, True))
    missed = (logits(fused_lm(tmp_path), chunks) - exact).square().mean()
    # A number that is rounded the other way moves all after it: only the size of the error can be known.
    assert missed < 1.3 * (coarse - exact).square().mean()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_is_the_same_to_the_bit_alone_and_among_others(tmp_path: Path, threads: int) -> None:
    save_model("Llama", tmp_path, **SIZES)
    fused = fused_lm(tmp_path, threads)
    ids = ids_of(2, 32)
    mine = [row(ids, 0, 31, [1, 2]), row(ids, 31, 1, [1, 2])]
    alone = logits(fused, [[mine[0]], [mine[1]]])
    others = [row(ids_of(i, 9 * i), 0, 9 * i, [4 * i, 1 + 4 * i, 2 + 4 * i]) for i in range(1, 6)]
    among = logits(fused, [[*others, mine[0]], [mine[1]]])
    assert torch.equal(alone, among[-32:])


def test_a_prompt_is_the_same_to_the_bit_in_any_chunks(tmp_path: Path) -> None:
    save_model("Mistral", tmp_path, **SIZES, sliding_window=20)
    fused = fused_lm(tmp_path)
    ids, table = ids_of(3, 70), [5, 1, 7, 2, 3]
    whole = logits(fused, [[row(ids, 0, 70, table)]])
    cuts = [0, 1, 8, 33, 34, 70]
    pieces = [[row(ids, a, b - a, table)] for a, b in itertools.pairwise(cuts)]
    assert torch.equal(whole, logits(fused, pieces))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_likeliest_token_is_that_of_the_logits(tmp_path: Path, threads: int) -> None:
    save_model("Llama", tmp_path, **SIZES)
    fused = fused_lm(tmp_path, threads)
    hidden = torch.randn(70, SIZES["hidden_size"], generator=torch.Generator().manual_seed(0))
    assert fused.greedy_tokens(hidden) == fused.logits(hidden).argmax(-1).tolist()
    vocabulary, random = fused.architecture.vocab_size, torch.Generator().manual_seed(1)
    allowed = torch.randint(-(2**31), 2**31, (70, -(-vocabulary // 32)), generator=random).int()
    allowed[:30] &= torch.randint(-(2**31), 2**31, (30, allowed.shape[1]), generator=random).int()
    allowed[30:33] = -1
    likeliest = logit_masks.apply(allowed, fused.logits(hidden)).argmax(-1).tolist()
    assert fused.greedy_tokens(hidden, allowed) == likeliest
    assert likeliest[30:33] == fused.greedy_tokens(hidden)[30:33]


@pytest.mark.parametrize(
    ("said", "kind"), [({}, "int8"), ({"quantization": "none"}, None), ({"dtype": "float32"}, None)]
)
def test_int8_is_what_a_cpu_computes_with_unless_it_is_refused(
    tmp_path: Path, said: dict[str, Any], kind: str | None
) -> None:
    save_model("Llama", tmp_path, **SIZES)
    runner = TorchRunner(read_torch_config(BackendConfig(model=str(tmp_path), **said)), Device("cpu"), 4)
    assert runner.load(lambda progress: None).runtime["quantization"] == kind


def test_int8_that_cannot_be_had_is_refused(tmp_path: Path) -> None:
    save_model("Llama", tmp_path, intermediate_size=50)
    options = read_torch_config(BackendConfig(model=str(tmp_path), quantization="int8"))
    with pytest.raises(ConfigError, match="multiples of 32"):
        TorchRunner(options, Device("cpu"), 4).load(lambda progress: None)


def real_model(quantization: str | None) -> tuple[Decoder, Path]:
    config = read_torch_config(BackendConfig(model=locate().location, quantization=quantization))
    runner = TorchRunner(config, Device("cpu"), 1)
    card = runner.load(lambda progress: None)
    return runner.decoder, Path(card.tokenizer)


def test_the_real_model_keeps_its_mind() -> None:
    """Little KL divergence from the fp32 model, and the same first choice nearly always."""
    fused, directory = real_model(None)
    unrounded, _ = real_model("none")
    text = (ROOT / "LICENSE").read_text()
    ids = Tokenizer.load(directory).encode(text, add_special_tokens=False)[:256]
    batches = [[row(ids, 0, len(ids), list(range(64)))]]
    exact = logits(unrounded, batches).log_softmax(-1)
    ours = logits(fused, batches).log_softmax(-1)
    assert (exact.exp() * (exact - ours)).sum(-1).mean() < 0.003
    assert (exact.argmax(-1) == ours.argmax(-1)).float().mean() > 0.97
