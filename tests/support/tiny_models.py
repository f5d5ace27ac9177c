"""Build tiny random models for tests: Hugging Face directories and GGUF files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, models

TINY: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
TEXT_CONFIGURATIONS = {"Gemma3": "Gemma3TextConfig"}
"""Configurations that are not named after their family."""


def save_model(family: str, directory: Path, **changes: Any) -> Any:
    """Write a random model of transformers to the directory; biases and norms are random, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        configuration = TEXT_CONFIGURATIONS.get(family, f"{family}Config")
        config = getattr(transformers, configuration)(**(TINY | changes))
        torch.manual_seed(1)
        model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias") or "norm" in name:
                    parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
        model.save_pretrained(directory)
    if not (file := directory / "tokenizer.json").exists():
        Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>")).save(str(file))
    return model


def write_gguf(
    path: Path,
    model: Any,
    architecture: str = "llama",
    *,
    quantization: str = "F32",
    tensors: dict[str, Any] | None = None,
    keys: dict[str, Any] | None = None,
) -> Path:
    """Write a model of transformers as a GGUF file, with a byte-level tokenizer of single letters."""
    writer = gguf.GGUFWriter(path, architecture)
    config = model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    _write_tokenizer(writer, config.vocab_size)
    for key, value in (keys or {}).items():
        writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    kind = gguf.GGMLQuantizationType[quantization]
    for name, tensor in (_gguf_tensors(model, architecture) | (tensors or {})).items():
        if tensor.ndim == 1 or kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: gguf.GGUFWriter, size: int) -> None:
    letters = [chr(code) for code in range(ord("!"), ord("!") + size - 5)]
    merged = ["Ġ", "th", "the"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*letters, *merged, "<s>", "<|im_end|>"])
    writer.add_token_types([1] * (size - 2) + [3, 3])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(size - 2)
    writer.add_eos_token_id(size - 1)
    writer.add_chat_template("{{ messages[0]['content'] }}")


def _gguf_tensors(model: Any, architecture: str) -> dict[str, Any]:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], model.config.num_hidden_layers)
    tensors = {}
    for name, parameter in model.state_dict().items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target and not (name == "lm_head.weight" and model.config.tie_word_embeddings):
            values = parameter.numpy().astype(np.float32)
            heads = {"q": model.config.num_attention_heads, "k": model.config.num_key_value_heads}
            module = name.split(".")[-2]
            if architecture == "llama" and module in ("q_proj", "k_proj"):
                values = _interleave(values, heads[module[0]])
            tensors[target] = values
    return tensors


def _interleave(rows: Any, heads: int) -> Any:
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))
