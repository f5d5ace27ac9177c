"""Write decoders with random weights as GGUF files, for llama.cpp."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Shapes = dict[str, tuple[int, ...]]
STANDARD_DEVIATION = 0.02
ARCHITECTURES = {"Qwen3MoeForCausalLM": "qwen3moe", "Gemma3ForCausalLM": "gemma3"}
"""GGUF's architecture of each class."""


def quantized(program: Path, whole: Path, form: str) -> Path:
    """Return a copy of a file in another format; write it with ``llama-quantize`` if it does not exist."""
    path = whole.with_name(whole.name.replace("F16", form))
    if not path.exists():
        subprocess.run([program, whole, path, form], check=True, capture_output=True)
    return path


def write_model(path: Path, configuration: dict[str, Any]) -> None:
    """Write a model with the configuration of its class in transformers, in float16.

    Its tokens have no meaning: it is for programs that take token ids.
    """
    c, architecture = configuration, ARCHITECTURES[configuration["architectures"][0]]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("random")
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_key_length(c["head_dim"])
    writer.add_value_length(c["head_dim"])
    writer.add_rope_freq_base(c.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(1e-6)
    if architecture == "qwen3moe":
        writer.add_expert_count(c["num_experts"])
        writer.add_expert_used_count(c["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(c["moe_intermediate_size"])
    else:
        writer.add_sliding_window(c["sliding_window"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["a", "b", "ab", "Ċ", *(f"token{i}" for i in range(4, c["vocab_size"]))])
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * c["vocab_size"])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(c["vocab_size"] - 1)
    write_tensors(writer, shapes(configuration))


def shapes(configuration: dict[str, Any]) -> Shapes:
    """Return the shape of each tensor. The output head is the embedding."""
    c, experts = configuration, configuration.get("num_experts")
    hidden, inner, dim = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    queries, keys = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    layer: Shapes = {
        "attn_norm": (hidden,),
        "attn_q": (queries, hidden),
        "attn_k": (keys, hidden),
        "attn_v": (keys, hidden),
        "attn_q_norm": (dim,),
        "attn_k_norm": (dim,),
        "attn_output": (hidden, queries),
        "ffn_norm": (hidden,),
    }
    if experts:
        inner = c["moe_intermediate_size"]
        layer |= {
            "ffn_gate_inp": (experts, hidden),
            "ffn_gate_exps": (experts, inner, hidden),
            "ffn_up_exps": (experts, inner, hidden),
            "ffn_down_exps": (experts, hidden, inner),
        }
    else:
        layer |= {
            "post_attention_norm": (hidden,),
            "ffn_gate": (inner, hidden),
            "ffn_up": (inner, hidden),
            "ffn_down": (hidden, inner),
            "post_ffw_norm": (hidden,),
        }
    found: Shapes = {"token_embd.weight": (c["vocab_size"], hidden)}
    for index in range(c["num_hidden_layers"]):
        found |= {f"blk.{index}.{name}.weight": shape for name, shape in layer.items()}
    return found | {"output_norm.weight": (hidden,)}


def write_tensors(writer: gguf.GGUFWriter, tensors: Shapes) -> None:
    """Write the file with random matrices in float16; norms are ones. Routers stay in float32."""
    dtypes = {
        name: np.dtype(np.float16 if len(shape) > 1 and "ffn_gate_inp" not in name else np.float32)
        for name, shape in tensors.items()
    }
    for name, shape in tensors.items():
        writer.add_tensor_info(name, shape, dtypes[name], int(np.prod(shape)) * dtypes[name].itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0)
    for name, shape in tensors.items():
        values = np.ones(shape, np.float32)
        if len(shape) > 1:
            values = random.standard_normal(shape, np.float32) * np.float32(STANDARD_DEVIATION)
        writer.write_tensor_data(values.astype(dtypes[name]))
    writer.close()
