from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.quantized_models import (
    Format,
    awq,
    bitsandbytes,
    change_config,
    float8,
    gptq,
    int8,
    int8_bitsandbytes,
    mxfp4,
    nvfp4,
    packed,
    write_pair,
)

from fllm.errors import ModelError
from fllm_backends.checkpoints.quantized.config import read_quantization
from fllm_backends.torch.checkpoint import Checkpoint

DOWN = "model.layers.0.mlp.down_proj.weight"
INPUT_SCALE = torch.tensor(0.01)
COMPRESSED = {"quant_method": "compressed-tensors", "format": "float-quantized"}
FBGEMM = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}
DEEPSEEK = {"quant_method": "fp8", "weight_block_size": [32, 48]}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq"}
GPTQ2 = GPTQ | {"checkpoint_format": "gptq_v2"}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
PACKED = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
BITSANDBYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True}

FORMATS: dict[str, tuple[Format, dict[str, Any] | None]] = {
    "fp8 per tensor": (float8(), {"quant_method": "fp8"}),
    "fp8 per row": (float8(block=(1, 0)), COMPRESSED),
    "fp8 static": (float8(input_scale=INPUT_SCALE), COMPRESSED),
    "fp8 in columns": (float8(block=(96, 32)), COMPRESSED),
    "fbgemm": (float8(block=(1, 0), input_scale_ub=INPUT_SCALE), FBGEMM),
    "deepseek": (float8("weight_scale_inv", (32, 48)), DEEPSEEK),
    "deepseek without a config": (float8("weight_scale_inv", (32, 32)), None),
    "modelopt": (float8(input_scale=INPUT_SCALE), MODELOPT),
    "modelopt without a config": (float8(input_scale=INPUT_SCALE), None),
    "quark": (float8(input_scale=INPUT_SCALE), {"quant_method": "quark"}),
    "int8": (int8, {"quant_method": "compressed-tensors", "format": "int-quantized"}),
    "int8 without a config": (int8, None),
    "gptq": (gptq(), GPTQ),
    "gptq without a config": (gptq(), None),
    "gptq 2 bits": (gptq(2), GPTQ),
    "gptq 3 bits": (gptq(3), GPTQ),
    "gptq 8 bits": (gptq(8), GPTQ),
    "gptq asymmetric": (gptq(symmetric=False), GPTQ),
    "gptq in act order": (gptq(ordered=False), GPTQ | {"desc_act": True}),
    "gptq v2": (gptq(symmetric=False, offset=0), GPTQ2),
    "gptq by auto-round": (gptq(), {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq"}),
    "awq": (awq, AWQ),
    "awq without a config": (awq, None),
    "w4a16": (packed(), PACKED),
    "w4a16 per row": (packed(groups=1), PACKED),
    "w4a16 asymmetric": (packed(symmetric=False), PACKED),
    "w4a16 in act order": (packed(ordered=False), PACKED),
    "w8a16": (packed(8), PACKED),
    "mxfp4": (mxfp4, {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"}),
    "nvfp4": (
        nvfp4(compressed=True),
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
    ),
    "nvfp4 of modelopt": (nvfp4(compressed=False), {"quant_method": "modelopt", "quant_algo": "NVFP4"}),
    "nf4": (bitsandbytes(double=False), BITSANDBYTES),
    "nf4 with double quantization": (bitsandbytes(double=True), BITSANDBYTES),
    "fp4": (bitsandbytes("fp4", double=False), BITSANDBYTES),
    "bitsandbytes int8": (int8_bitsandbytes, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_has_the_weights_that_it_stands_for(name: str, tmp_path: Path) -> None:
    quantized, plain = (Checkpoint(directory) for directory in write_pair(tmp_path, *FORMATS[name]))
    assert set(quantized) == set(plain)
    for weight in plain:
        assert torch.equal(quantized.read(weight), plain.read(weight)), weight
    middle = quantized.matrix(DOWN, 64, 96).rows(7, 29)
    assert torch.equal(middle, plain.read(DOWN)[7:29])


def test_an_older_modelopt_checkpoint_has_a_file_of_its_own(tmp_path: Path) -> None:
    quantized, _ = write_pair(tmp_path, float8(input_scale=INPUT_SCALE), None)
    assert read_quantization(quantized) is None
    (quantized / "hf_quant_config.json").write_text(
        '{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}'
    )
    config = read_quantization(quantized)
    assert config
    assert config.method == "modelopt"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "hqq"}, "quantized with hqq, which the torch backend can't read; it reads fp8"),
        ({"quant_method": "torchao"}, "quantized with torchao"),
        ({"bits": 4}, "an unknown method"),
        ({"quant_method": "awq", "version": "gemv"}, "awq's version 'gemv' can't be read; gemm can"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "quant_algo 'W4A8_AWQ' can't be read"),
        ({"quant_method": "compressed-tensors", "format": "marlin-24"}, "format 'marlin-24' can't be read"),
        (COMPRESSED | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse weights"),
        (COMPRESSED | {"transform_config": {"config_groups": {"u": {}}}}, "rotated activations"),
        (
            {"quant_method": "fp8", "weight_block_size": [0, 128]},
            r"config.json: invalid quantization_config: .* `\$.weight_block_size",
        ),
        ({"quant_method": "auto-round", "packing_format": "auto_round"}, "packing_format 'auto_round'"),
    ],
)
def test_what_can_not_be_read_is_refused_by_its_configuration(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    change_config(tmp_path, quantization_config=config)
    with pytest.raises(ModelError, match=message):
        read_quantization(tmp_path)


def test_float8_without_scales_is_never_taken_for_plain_weights(tmp_path: Path) -> None:
    def bare(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        return {"weight": weight.to(torch.float8_e4m3fn)}, weight

    quantized, _ = write_pair(tmp_path, bare, None)
    with pytest.raises(ModelError, match="float8 weights can't be read without their scales"):
        Checkpoint(quantized)


DAMAGE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "empty": lambda tensor: tensor[:0] if tensor.ndim else tensor.reshape(1)[:0],
    "one row less": lambda tensor: tensor[:-1].contiguous() if tensor.ndim else tensor,
    "flat": lambda tensor: tensor.flatten(),
    "one column less": lambda tensor: tensor[..., :-1].contiguous() if tensor.ndim else tensor,
    "all bits set": lambda tensor: (
        tensor if not tensor.ndim else torch.full_like(tensor.view(torch.uint8), 255).view(tensor.dtype)
    ),
}


DAMAGED_FORMATS = (
    "fp8 per row", "deepseek", "int8", "gptq asymmetric", "gptq in act order", "awq", "w4a16 asymmetric",
    "w4a16 in act order", "mxfp4", "nvfp4", "nf4 with double quantization",
)  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED_FORMATS)
def test_damaged_tensors_are_one_line_or_numbers(name: str, tmp_path: Path) -> None:
    module = "model.layers.0.mlp.down_proj."
    directory, _ = write_pair(tmp_path, *FORMATS[name], num_hidden_layers=1)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    refused = 0
    for part in [key for key in tensors if key.startswith(module)]:
        for damage, change in DAMAGE.items():
            save_file(tensors | {part: change(tensors[part])}, file)
            with suppress(ModelError):
                refused += 1
                weight = Checkpoint(directory).matrix(f"{module}weight", 64, 96)
                rows = [weight.rows(0, 40), weight.rows(40, 64)]
                assert [part.shape for part in rows] == [(40, 96), (24, 96)], (part, damage)
                if weight.gguf_type:
                    weight.blocks(0, 64)
                refused -= 1
    assert refused >= 3


@pytest.mark.parametrize(
    ("form", "part", "tensor", "message"),
    [
        (gptq(), "qweight", torch.zeros(16, 64), "is of type F32; only integers packed into I32"),
        (gptq(), "qzeros", torch.zeros(4, 8, dtype=torch.int16), "is of type I16; only integers packed"),
        (packed(), "weight_packed", torch.zeros(64, 16, dtype=torch.int64), "is of type I64; only integers"),
        (float8(), "weight_scale", torch.ones(7, 3), "7 scales don't divide 64 rows or columns into equal"),
    ],
)
def test_what_would_be_a_guess_is_refused(
    form: Any, part: str, tensor: torch.Tensor, message: str, tmp_path: Path
) -> None:
    quantized, _ = write_pair(tmp_path, form, None)
    name = "model.layers.0.self_attn.q_proj."
    weights = load_file(quantized / "model.safetensors") | {name + part: tensor}
    save_file(weights, quantized / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        Checkpoint(quantized).weight(f"{name}weight")
