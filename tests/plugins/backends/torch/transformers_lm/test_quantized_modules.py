"""Linear layers of classes of transformers on the products of a CUDA device."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="the kernels are written in Triton")

from support.model_families import build
from support.quantized_models import float8, write_pair
from torch import nn

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.checkpoint import Checkpoint
from fllm_backends.torch.cuda.linear import Fp8Linear
from fllm_backends.torch.transformers_lm.factory import transformers_decoder
from fllm_backends.torch.transformers_lm.model_class import read_transformers_model
from fllm_backends.torch.transformers_lm.quantized_modules import QuantizedLinear, quantize_modules

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
IDS = torch.tensor([[17, 99, 140, 23, 64]])


@pytest.mark.parametrize(("name", "layers"), [("gpt2", 4 + 1), ("mixtral", 4 + 1)])
def test_the_products_are_those_of_rounded_weights(name: str, layers: int) -> None:
    """gpt2 has transposed matrices with biases; mixtral has experts, which are not replaced."""
    model = build(name, num_hidden_layers=1).to(DEVICE)
    rounded, steps = copy.deepcopy(model), []
    quantize_modules(rounded, "int8", DEVICE, lambda: steps.append(1))
    replaced = [each for each in rounded.modules() if isinstance(each, QuantizedLinear)]
    assert len(replaced) == len(steps) == layers
    with torch.inference_mode():
        expected, found = (
            each(input_ids=IDS.to(DEVICE), use_cache=False).logits for each in (model, rounded)
        )
    assert torch.cosine_similarity(expected[0], found[0]).min() > 0.999
    assert not torch.equal(expected, found)


def test_a_layer_keeps_the_dimensions_of_its_input() -> None:
    model = nn.ModuleDict({"layer": nn.Linear(64, 80)})
    linear: Any = model["layer"]
    quantize_modules(model.to(DEVICE), "int8", DEVICE, lambda: None)
    wide = torch.randn(2, 3, 100, device=DEVICE)
    x = wide[..., :64]  # not contiguous
    torch.testing.assert_close(model["layer"](x), linear(x), rtol=0, atol=0.05)
    assert model["layer"](x[:, :0]).shape == (2, 0, 80)
    assert model["layer"].weight.dtype == torch.float32


def hidden_states(directory: Path, quantization: str | None) -> tuple[torch.Tensor, set[type]]:
    """Return the hidden states of a prompt, and the types of the products."""
    decoder = transformers_decoder(
        read_transformers_model(directory),
        Checkpoint(directory),
        device=DEVICE,
        dtype=torch.float32,
        seed=0,
        threads=None,
        quantization=quantization,
        progress=lambda _: None,
    )
    like = torch.empty(0, dtype=decoder.cache_dtype, device=DEVICE)
    row = Row(
        token_ids=[5, 17, 80], prompt_length=3, start=0, count=3, block_table=[0], seed=0, sample=False,
        sampling=SamplingParams(max_tokens=1),
    )  # fmt: skip
    with torch.inference_mode():
        hidden = decoder.forward(
            torch.tensor(row.token_ids),
            AttentionBatch([row], 4, DEVICE),
            KVCache(decoder.kv_shapes, 1, 4, like),
        )
    modules = decoder._model.modules()
    return hidden, {type(each._product) for each in modules if isinstance(each, QuantizedLinear)}


def test_the_values_of_a_checkpoint_in_float8_are_not_rounded_again(tmp_path: Path) -> None:
    quantized, plain = write_pair(
        tmp_path, float8(block=(1, 0)), {"quant_method": "fbgemm_fp8"}, num_hidden_layers=1
    )
    expected, _ = hidden_states(plain, None)
    found, kinds = hidden_states(quantized, "fp8")
    assert kinds == {Fp8Linear}
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
