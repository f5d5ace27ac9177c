from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from support.quantized_models import Format, awq, gptq, int8, mxfp4, packed, write_pair

from fllm_backends.torch.checkpoint import Checkpoint

NAME = "model.layers.0.mlp.down_proj.weight"
SIZES = {"num_hidden_layers": 1, "intermediate_size": 128}


@pytest.mark.parametrize(
    ("form", "kind", "error"),
    [
        (gptq(), "Q4_0", 0.0),
        (gptq(8), "Q8_0", 0.0),
        (gptq(symmetric=False), "Q4_1", 0.005),  # the minimum is rounded to float16
        (packed(groups=1), "Q4_0", 0.0),
        (packed(symmetric=False), "Q4_1", 0.005),
        (awq, "Q4_1", 0.005),
        (mxfp4, "Q8_0", 0.0),
        (int8, "Q8_0", 0.0),
    ],
)
def test_grids_are_blocks_of_gguf(form: Format, kind: str, error: float, tmp_path: Path) -> None:
    checkpoint = Checkpoint(write_pair(tmp_path, form, None, **SIZES)[0])
    matrix = checkpoint.matrix(NAME, 64, 128)
    assert matrix.gguf_type == kind
    found = gguf.quants.dequantize(matrix.blocks(5, 21), gguf.GGMLQuantizationType[kind])
    expected = matrix.rows(5, 21)
    assert (torch.from_numpy(found) - expected).abs().max() <= error * expected.abs().max()


@pytest.mark.parametrize("form", [gptq(ordered=False), gptq(2), gptq(groups=8)])
def test_other_weights_have_no_blocks(form: Format, tmp_path: Path) -> None:
    matrix = Checkpoint(write_pair(tmp_path, form, None, **SIZES)[0]).matrix(NAME, 64, 128)
    assert matrix.gguf_type is None
