"""The fused decoder computes what torch computes with the same rounded weights."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
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
from fllm_backends.torch.fused.decoder import FusedLM
from fllm_backends.torch.fused.formats import GROUP
from fllm_backends.torch.fused.simd_kernels import OUTLIER
from fllm_backends.torch.fused.target import TARGET, targets
from fllm_backends.torch.model import CausalLM, Decoder, Experts, Linear, Mlp, Weights
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner
from fllm_backends.torch.weight_matrix import materialize
from fllm_backends.torch.weights import CheckpointSource, load_weights

SIZES = {"hidden_size": 128, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
EXPERTS: dict[str, Any] = {
    "head_dim": 32,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "decoder_sparse_step": 1,
}
GEMMA: dict[str, Any] = {"head_dim": 32, "sliding_window": 7, "query_pre_attn_scalar": 20}
BLOCK_SIZE = 16
CPU = torch.device("cpu")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama tied": ("Llama", {"tie_word_embeddings": True}),
    "heads of 80": ("Llama", {"hidden_size": 160, "num_attention_heads": 2}),
    "heads of 96": ("Llama", {"hidden_size": 192, "num_attention_heads": 2}),
    "heads of 100": ("Qwen3", {"head_dim": 100}),
    "sizes not in multiples of 32": (
        "Llama",
        {
            "vocab_size": 85,
            "hidden_size": 120,
            "intermediate_size": 50,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    "mistral with a window": ("Mistral", {"sliding_window": 7}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5, "pad_token_id": 0}),
    "gelu": ("Llama", {"hidden_act": "gelu", "hidden_size": 144, "head_dim": 44}),
    "gemma": ("Gemma", {"head_dim": 32}),
    "gemma 2": ("Gemma2", GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma 3": ("Gemma3", GEMMA | {"num_hidden_layers": 7}),
    "phi 3 with longrope": (
        "Phi3",
        {
            "pad_token_id": 0,
            "hidden_size": 160,
            "original_max_position_embeddings": 32,
            "partial_rotary_factor": 0.75,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.75,
                "original_max_position_embeddings": 32,
                "short_factor": [1.0 + 0.1 * i for i in range(15)],
                "long_factor": [1.0 + 0.9 * i for i in range(15)],
            },
        },
    ),
    "granite": (
        "Granite",
        {
            "embedding_multiplier": 6.0,
            "residual_multiplier": 0.3,
            "attention_multiplier": 0.1,
            "logits_scaling": 4.0,
            "attention_bias": True,
        },
    ),
    "olmo 2": ("Olmo2", {}),
    "glm 4": ("Glm4", {"head_dim": 32, "attention_bias": True, "pad_token_id": 0}),
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "qwen3 with experts": ("Qwen3Moe", EXPERTS | {"norm_topk_prob": True}),
    "qwen3 with some dense layers": ("Qwen3Moe", EXPERTS | {"mlp_only_layers": [1]}),
    "qwen2 with a shared expert": ("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 72}),
}

pytestmark = pytest.mark.skipif(not targets(), reason="the kernels need AVX2 or NEON")


@dataclasses.dataclass(frozen=True)
class Coarse(Linear):
    """Rounds what it is given in groups, to 8 bits; to 15 if a number is an outlier of its row.

    Queries, keys and values are rounded to bfloat16 where the kernels multiply those.
    """

    outlier: float = math.inf
    bfloat: bool = False

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        groups = F.pad(x, (0, -x.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))
        largest = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30)
        fine = largest > self.outlier * x.square().mean(-1).sqrt()[..., None, None]
        steps = largest / torch.where(fine, 127 * 128, 127)
        found = super().__call__(((groups / steps).round() * steps).flatten(-2)[..., : x.shape[-1]])
        return found.bfloat16().float() if self.bfloat else found


def on_grid(weight: torch.Tensor) -> torch.Tensor:
    """Move weights to a grid that 4 bits hold in whatever groups they are packed."""
    steps = torch.tensor([-8.0, -2.0, 3.0, 7.0])[
        torch.bucketize(weight, weight.std() * torch.tensor([-0.5, 0, 0.6]))
    ]
    return steps * 2.0 ** math.floor(math.log2(weight.std() / 5))


def mapped(weights: Weights, change: Callable[[str, Linear], Linear]) -> Weights:
    """Change all matrices of the layers, which are named as in `Layer` and `Mlp`."""

    def change_mlp(mlp: Mlp) -> Mlp:
        return Mlp(change("gate_up", mlp.gate_up), change("down", mlp.down))

    def change_experts(mlp: Experts) -> Experts:
        shared = mlp.shared and change_mlp(mlp.shared)
        return dataclasses.replace(mlp, experts=tuple(map(change_mlp, mlp.experts)), shared=shared)

    layers = [
        dataclasses.replace(
            layer,
            qkv=change("qkv", layer.qkv),
            output=change("output", layer.output),
            mlp=change_experts(layer.mlp) if isinstance(layer.mlp, Experts) else change_mlp(layer.mlp),
        )
        for layer in weights.layers
    ]
    return dataclasses.replace(weights, layers=layers)


def coarse(name: str, linear: Linear) -> Linear:
    """Round the activations as the kernels do."""
    outlier = math.inf if name in ("output", "down") else OUTLIER
    return Coarse(linear.weight, linear.bias, outlier, TARGET.bfloat and name == "qkv")


def gridded(directory: Path) -> tuple[Architecture, Weights]:
    """Load a model whose weights the kernels hold without rounding."""
    architecture, weights = loaded(directory)
    like = torch.empty(0)
    weights = materialize(dataclasses.replace(weights, layers=tuple(weights.layers)), like)
    tied = weights.embedding is weights.head
    weights = mapped(weights, lambda _, linear: Linear(on_grid(linear.weight), linear.bias))
    embedding = on_grid(weights.embedding)
    head = embedding if tied else on_grid(weights.head)
    return architecture, dataclasses.replace(weights, embedding=embedding, head=head)


def loaded(directory: Path) -> tuple[Architecture, Weights]:
    architecture = read_architecture(directory)
    source = CheckpointSource(Checkpoint(directory), CPU, torch.float32)
    return architecture, load_weights(architecture, source, lambda progress: None)


def fused_lm(directory: Path, threads: int = 2) -> FusedLM:
    architecture, weights = gridded(directory)
    return FusedLM(architecture, weights, threads=threads)


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
    found: list[int] = np.random.default_rng(seed).integers(0, 85, count).tolist()
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
    architecture, weights = gridded(tmp_path)
    exact = logits(CausalLM(architecture, weights), chunks)
    rounded = logits(CausalLM(architecture, mapped(weights, coarse)), chunks)
    missed = (logits(fused_lm(tmp_path), chunks) - exact).square().mean(-1)
    # A number that is rounded the other way moves all after it: only the size of the error can be known. A
    # router may choose another expert then: that is rare.
    assert missed.median() < 1.4 * (rounded - exact).square().mean(-1).median()
    assert missed.median() < 6e-3 * exact.var()


@pytest.mark.parametrize(
    ("name", "threads"),
    [
        ("llama", 1),
        ("llama", 2),
        ("llama", 3),
        ("gemma 2", 2),
        ("qwen3 with experts", 1),
        ("qwen2 with a shared expert", 2),
    ],
)
def test_a_row_is_the_same_to_the_bit_alone_and_among_others(tmp_path: Path, name: str, threads: int) -> None:
    family, changes = VARIANTS[name]
    save_model(family, tmp_path, **SIZES | changes)
    fused = fused_lm(tmp_path, threads)
    ids = ids_of(2, 32)
    mine = [row(ids, 0, 31, [1, 2]), row(ids, 31, 1, [1, 2])]
    alone = logits(fused, [[mine[0]], [mine[1]]])
    others = [row(ids_of(i, 9 * i), 0, 9 * i, [4 * i, 1 + 4 * i, 2 + 4 * i]) for i in range(1, 6)]
    among = logits(fused, [[*others, mine[0]], [mine[1]]])
    assert torch.equal(alone, among[-32:])


def test_an_expert_computes_more_tokens_than_one_job_has(tmp_path: Path) -> None:
    save_model("Qwen3Moe", tmp_path, **SIZES | EXPERTS | {"num_experts": 3})
    architecture, weights = gridded(tmp_path)
    for layer in weights.layers:
        assert isinstance(layer.mlp, Experts)
        router = layer.mlp.router.tensor
        router[1], router[2] = -router[0], 0  # the last expert is always one of the best two
    ids = ids_of(4, 200)
    batch = [[row(ids, 0, 200, list(range(13)))]]
    fused = FusedLM(architecture, weights, threads=2)
    torch_logits = logits(CausalLM(architecture, weights), batch)
    missed = (logits(fused, batch) - torch_logits).square().mean(-1)
    assert missed.median() < 5e-3 * torch_logits.var()


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
    save_model("Llama", tmp_path, hidden_size=8)
    options = read_torch_config(BackendConfig(model=str(tmp_path), quantization="int8"))
    with pytest.raises(ConfigError, match="multiples of 32"):
        TorchRunner(options, Device("cpu"), 4).load(lambda progress: None)


def test_the_log_says_that_int8_is_not_used_unless_it_was_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_model("Llama", tmp_path, hidden_size=8)
    with caplog.at_level("INFO"):
        for said in ({}, {"quantization": "none"}, {"dtype": "float32"}):
            options = read_torch_config(BackendConfig(model=str(tmp_path), **said))
            TorchRunner(options, Device("cpu"), 4).load(lambda progress: None)
    messages = [record.getMessage() for record in caplog.records]
    expected = "int8 is not used: it needs AVX2 or NEON, and sizes close to multiples of 32; weights=float32"
    assert messages == [expected]


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


def test_what_follows_the_layers_in_the_same_call_is_what_follows_them_later(tmp_path: Path) -> None:
    save_model("Llama", tmp_path, **SIZES)
    model = fused_lm(tmp_path)
    ids, tables = ids_of(4, 12), [[3, 1], [2, 5], [7, 0]]
    cache = KVCache(model.kv_shapes, 64, BLOCK_SIZE, like=torch.empty(0, dtype=model.cache_dtype))
    with torch.inference_mode():
        for start in range(10):
            rows = [row(ids[at:], start, 1, table) for at, table in enumerate(tables)]
            inputs = torch.tensor(ids[start : start + 3]), AttentionBatch(rows, BLOCK_SIZE, CPU), cache
            hidden = model.forward(*inputs)
            allowed = torch.full((3, 3), 1 << start, dtype=torch.int32)
            assert torch.equal(model.next_logits(*inputs), model.logits(hidden))
            assert model.next_tokens(*inputs) == model.greedy_tokens(hidden)
            assert model.next_tokens(*inputs, allowed) == model.greedy_tokens(hidden, allowed)
            assert all(token % 32 == start for token in model.next_tokens(*inputs, allowed))
