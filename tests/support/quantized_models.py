"""Write tiny checkpoints in the formats of quantization tools, and the same weights as plain floats.

Each format is a function of a weight [out, in]. It returns the tensors that hold the weight, by suffix of the
module's name, and the weight that they stand for. Packing is written out here element by element, from the
descriptions of the formats.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import save_model
from torch import Tensor

Written = tuple[dict[str, Tensor], Tensor]
Format = Callable[[Tensor], Written]
E4M3 = torch.float8_e4m3fn
FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_hidden_layers": 2,
}


def write_pair(
    directory: Path, form: Format, config: dict[str, Any] | None, **sizes: Any
) -> tuple[Path, Path]:
    """Write a quantized model and the plain one that it stands for; return both directories.

    ``config`` is the ``quantization_config``; ``None`` writes none.
    """
    quantized, plain = directory / "quantized", directory / "plain"
    save_model("Llama", plain, **(SIZES | sizes))
    shutil.copytree(plain, quantized)
    dense = load_file(plain / "model.safetensors")
    stored = {}
    for name, weight in list(dense.items()):
        if not name.endswith("_proj.weight"):
            stored[name] = weight
            continue
        parts, dense[name] = form(weight)
        stored |= {
            name.removesuffix("weight") + suffix: part.contiguous().clone() for suffix, part in parts.items()
        }
    save_file({name: weight.contiguous() for name, weight in dense.items()}, plain / "model.safetensors")
    save_file(stored, quantized / "model.safetensors")
    if config is not None:
        change_config(quantized, quantization_config=config)
    return quantized, plain


def change_config(directory: Path, **changes: Any) -> None:
    """Change keys of ``config.json``."""
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def float8(scale: str = "weight_scale", block: tuple[int, int] | None = None, **extra: Tensor) -> Format:
    """Return float8 with a scale of the tensor, or of blocks; (1, 0) are rows."""

    def form(weight: Tensor) -> Written:
        rows, columns = weight.shape
        height, width = (rows, columns) if block is None else (block[0], block[1] or columns)
        scales = torch.empty(-(-rows // height), -(-columns // width))
        for i in range(scales.shape[0]):
            for j in range(scales.shape[1]):
                part = weight[i * height : (i + 1) * height, j * width : (j + 1) * width]
                scales[i, j] = part.abs().max() / 448
        spread = torch.stack([scales[r // height][torch.arange(columns) // width] for r in range(rows)])
        values = (weight / spread).to(E4M3)
        shaped = scales.reshape(()) if block is None else scales
        return {"weight": values, scale: shaped} | extra, values.float() * spread

    return form


def int8(weight: Tensor) -> Written:
    """Return int8 with a bfloat16 scale for each row."""
    scale = (weight.abs().amax(1, keepdim=True) / 127).bfloat16()
    values = (weight / scale.float()).round().clamp(-128, 127)
    return {"weight": values.to(torch.int8), "weight_scale": scale}, values * scale.float()


def int8_bitsandbytes(weight: Tensor) -> Written:
    """Return bitsandbytes' int8: SCB is the largest magnitude of each row."""
    largest = weight.abs().amax(1)
    values = (weight / largest[:, None] * 127).round()
    tensors = {
        "weight": values.to(torch.int8),
        "SCB": largest,
        "weight_format": torch.tensor(0, dtype=torch.uint8),
    }
    return tensors, values * (largest / 127)[:, None]


def grid(
    weight: Tensor, bits: int, groups: int, *, symmetric: bool, group_of_column: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return values, zero points, scales, the weight, and the group of each column."""
    rows, columns = weight.shape
    owner = torch.arange(columns) // (columns // groups) if group_of_column is None else group_of_column
    top = 2**bits - 1
    scales = torch.empty(rows, groups)
    zeros = torch.empty(rows, groups, dtype=torch.int64)
    for group in range(groups):
        part = weight[:, owner == group]
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        if symmetric:
            scales[:, group] = 2 * part.abs().amax(1) / top
            zeros[:, group] = 2 ** (bits - 1)
        else:
            scales[:, group] = (high - low) / top
            zeros[:, group] = (-low / scales[:, group]).round().long()
    scales = scales.half().float()
    values = ((weight / scales[:, owner]).round().long() + zeros[:, owner]).clamp(0, top)
    return values, zeros, scales, (values - zeros[:, owner]).float() * scales[:, owner], owner


def gptq(
    bits: int = 4, groups: int = 2, *, symmetric: bool = True, ordered: bool = True, offset: int = 1
) -> Format:
    """Return GPTQ's layout; without ``ordered`` as ``desc_act`` writes it, with groups out of order."""

    def form(weight: Tensor) -> Written:
        columns = weight.shape[1]
        owner = torch.arange(columns) // (columns // groups)
        if not ordered:
            owner = owner[torch.randperm(columns, generator=torch.Generator().manual_seed(columns))]
        values, zeros, scales, dense, owner = grid(
            weight, bits, groups, symmetric=symmetric, group_of_column=owner
        )
        stored = (zeros - offset) % 2**bits
        tensors = {
            "qweight": stream_words(values, bits).t(),
            "qzeros": stream_words(stored.t(), bits),
            "scales": scales.t().half(),
            "g_idx": owner.int(),
        }
        return tensors, dense

    return form


def awq(weight: Tensor) -> Written:
    """Return AWQ's layout for GEMM."""
    values, zeros, scales, dense, _ = grid(weight, 4, 2, symmetric=False)

    def words(matrix: Tensor) -> Tensor:
        result = torch.zeros(matrix.shape[0], matrix.shape[1] // 8, dtype=torch.int64)
        for place, column in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
            result |= matrix[:, column::8] << 4 * place
        return as_int32(result)

    return {"qweight": words(values.t()), "qzeros": words(zeros.t()), "scales": scales.t().half()}, dense


def packed(bits: int = 4, groups: int = 2, *, symmetric: bool = True, ordered: bool = True) -> Format:
    """Return the layout ``pack-quantized`` of compressed-tensors."""

    def form(weight: Tensor) -> Written:
        columns = weight.shape[1]
        owner = torch.arange(columns) // (columns // groups)
        if not ordered:
            owner = owner[torch.randperm(columns, generator=torch.Generator().manual_seed(columns))]
        values, zeros, scales, dense, owner = grid(
            weight, bits, groups, symmetric=symmetric, group_of_column=owner
        )
        tensors = {
            "weight_packed": whole_words(values, bits),
            "weight_scale": scales.half(),
            "weight_shape": torch.tensor(weight.shape),
        }
        if not symmetric:
            tensors["weight_zero_point"] = whole_words(zeros.t(), bits).t()
        if not ordered:
            tensors["weight_g_idx"] = owner.int()
        return tensors, dense

    return form


def nvfp4(*, compressed: bool) -> Format:
    """Return NVFP4 of compressed-tensors, or of ModelOpt."""

    def form(weight: Tensor) -> Written:
        factor = weight.abs().max() / (448 * 6)
        grouped = weight.unflatten(1, (-1, 16))
        scale = (grouped.abs().amax(2) / 6 / factor).to(E4M3)
        if compressed:
            factor = 1 / (1 / factor)
        codes = nearest(grouped / (scale.float() * factor)[..., None], FP4).flatten(1)
        dense = torch.tensor(FP4)[codes] * (scale.float() * factor).repeat_interleave(16, 1)
        if compressed:
            names = {"weight_packed": bytes_of(codes), "weight_global_scale": (1 / factor)[None]}
        else:
            names = {"weight": bytes_of(codes), "weight_scale_2": factor}
        return names | {"weight_scale": scale, "input_scale": torch.tensor(0.5)}, dense

    return form


def mxfp4(weight: Tensor) -> Written:
    """Return MXFP4 of compressed-tensors: groups of 32 with a power of two."""
    grouped = weight.unflatten(1, (-1, 32))
    exponent = torch.floor(torch.log2(grouped.abs().amax(2))) - 2
    codes = nearest(grouped / 2 ** exponent[..., None], FP4).flatten(1)
    dense = torch.tensor(FP4)[codes] * (2**exponent).repeat_interleave(32, 1)
    return {"weight_packed": bytes_of(codes), "weight_scale": (exponent + 127).to(torch.uint8)}, dense


NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip


def bitsandbytes(kind: str = "nf4", *, double: bool) -> Format:
    """Return bitsandbytes' 4 bits with blocks of 64; with ``double`` their magnitudes are quantized, too."""
    codebook = torch.tensor(NF4 if kind == "nf4" else FP4) / (1 if kind == "nf4" else 6)

    def form(weight: Tensor) -> Written:
        blocks = weight.reshape(-1, 64)
        largest = blocks.abs().amax(1)
        state: dict[str, Any] = {
            "quant_type": kind,
            "blocksize": 64,
            "dtype": "float32",
            "shape": list(weight.shape),
        }
        tensors, absmax = {}, largest
        if double:
            nested = torch.linspace(-1, 1, 256)
            offset = largest.mean().item()
            scale = (largest - offset).abs().max()
            stored = nearest((largest - offset) / scale, tuple(nested.tolist()))
            largest = nested[stored] * scale + offset
            absmax = stored.to(torch.uint8)
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
            tensors = {"weight.nested_absmax": scale[None], "weight.nested_quant_map": nested}
        codes = nearest(blocks / largest[:, None], tuple(codebook.tolist()))
        pairs = codes.reshape(-1, 2)
        tensors |= {
            "weight": (pairs[:, :1] << 4 | pairs[:, 1:]).to(torch.uint8),
            "weight.absmax": absmax,
            "weight.quant_map": codebook,
            f"weight.quant_state.bitsandbytes__{kind}": torch.tensor(
                list(json.dumps(state).encode()), dtype=torch.uint8
            ),
        }
        return tensors, (codebook[codes] * largest[:, None]).reshape(weight.shape)

    return form


def nearest(values: Tensor, codebook: tuple[float, ...]) -> Tensor:
    """Return the index of the nearest number of a codebook."""
    return (values[..., None] - torch.tensor(codebook)).abs().argmin(-1)


def bytes_of(codes: Tensor) -> Tensor:
    """Pack two codes into each byte, the first one into the low half."""
    return (codes[:, ::2] | codes[:, 1::2] << 4).to(torch.uint8)


def stream_words(matrix: Tensor, bits: int) -> Tensor:
    """Pack the integers of each row as one stream of bits: [rows, words] int32."""
    rows = []
    for row in matrix.tolist():
        stream = sum(value << at * bits for at, value in enumerate(row))
        rows.append([stream >> 32 * word & 0xFFFFFFFF for word in range(len(row) * bits // 32)])
    return as_int32(torch.tensor(rows))


def whole_words(matrix: Tensor, bits: int) -> Tensor:
    """Pack as many whole integers into each word as fit: [rows, words] int32."""
    each = 32 // bits
    rows = []
    for row in matrix.tolist():
        chunks = [row[at : at + each] for at in range(0, len(row), each)]
        rows.append([sum(value << place * bits for place, value in enumerate(chunk)) for chunk in chunks])
    return as_int32(torch.tensor(rows))


def as_int32(words: Tensor) -> Tensor:
    """Return unsigned words as int32 of the same bits."""
    return torch.where(words >= 2**31, words - 2**32, words).int()
