from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.quantized_models import bytes_of, change_config, float8, nearest, write_pair
from support.tiny_models import TINY
from torch import Tensor

from fllm_backends.torch.checkpoint import Checkpoint
from fllm_backends.torch.lazy_weights import expert_matrices, lazy_weights, read_parameters

FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


def load(kind: Any, directory: Path, config: Any) -> Any:
    weights = lazy_weights(Checkpoint(directory), torch.float32)
    model = kind.from_pretrained(None, config=config, state_dict=weights, dtype=torch.float32).eval()
    read_parameters(model, torch.device("cpu"), lambda: None)
    return model


def test_classes_of_transformers_take_quantized_weights(tmp_path: Path) -> None:
    quantized, plain = write_pair(tmp_path, float8("weight_scale_inv", (32, 32)), {"quant_method": "fp8"})
    config = transformers.LlamaConfig.from_pretrained(plain)
    loaded = load(transformers.LlamaForCausalLM, quantized, config).state_dict()
    for name, weight in load_file(plain / "model.safetensors").items():
        assert torch.equal(loaded[name], weight), name


@pytest.mark.filterwarnings("ignore")
def test_experts_are_merged_after_they_are_dequantized(tmp_path: Path) -> None:
    config = transformers.Qwen3MoeConfig(
        **TINY | {"num_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2, "head_dim": 8}
    )
    transformers.Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    dense, stored = load_file(file), {}
    assert "model.layers.0.mlp.experts.3.up_proj.weight" in dense
    for name, weight in list(dense.items()):
        stored[name] = weight
        if ".experts." in name:
            parts, dense[name] = float8(block=(1, 0))(weight)
            stored |= {name.removesuffix("weight") + suffix: part for suffix, part in parts.items()}
    save_file(stored, file)
    loaded = load(transformers.Qwen3MoeForCausalLM, tmp_path, config).state_dict()
    up = torch.stack([dense[f"model.layers.1.mlp.experts.{index}.up_proj.weight"] for index in range(4)])
    assert torch.equal(loaded["model.layers.1.mlp.experts.gate_up_proj"][:, 16:], up)


@pytest.mark.filterwarnings("ignore")
def test_the_mxfp4_experts_of_gpt_oss_are_transposed(tmp_path: Path) -> None:
    config = transformers.GptOssConfig(
        **TINY | {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "intermediate_size": 32}
    )
    transformers.GptOssForCausalLM(config).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    dense, stored = load_file(file), {}
    for name, weight in list(dense.items()):
        if not name.endswith("_proj") or ".experts." not in name:
            stored[name] = weight
            continue
        codes, exponents, dense[name] = _mxfp4_experts(weight)
        stored |= {f"{name}_blocks": codes, f"{name}_scales": exponents}
    save_file(stored, file)
    change_config(tmp_path, quantization_config={"quant_method": "mxfp4"})
    loaded = load(transformers.GptOssForCausalLM, tmp_path, config).state_dict()
    for name in ("gate_up_proj", "down_proj"):
        name = f"model.layers.2.mlp.experts.{name}"
        assert torch.equal(loaded[name], dense[name]), name
        lazy = lazy_weights(Checkpoint(tmp_path), torch.float32)[name][...]
        matrices = expert_matrices(lazy, transposed=True)
        assert {each.gguf_type for each in matrices} == {"Q8_0"}, "they keep their bits"
        experts = torch.stack([each.rows(0, each.shape[0]) for each in matrices])
        assert torch.equal(experts.transpose(1, 2), dense[name]), name


def _mxfp4_experts(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return blocks [experts, out, groups, 16], scales [experts, out, groups] and the weight."""
    experts, _, outputs = weight.shape
    groups = weight.transpose(1, 2).unflatten(2, (-1, 32))
    exponents = torch.floor(torch.log2(groups.abs().amax(3))) - 2
    codes = nearest(groups / 2 ** exponents[..., None], FP4)
    values = (torch.tensor(FP4)[codes] * 2 ** exponents[..., None]).flatten(2).transpose(1, 2)
    blocks = bytes_of(codes.flatten(0, 2)).view(experts, outputs, -1, 16)
    return blocks, (exponents + 127).to(torch.uint8), values.contiguous()
