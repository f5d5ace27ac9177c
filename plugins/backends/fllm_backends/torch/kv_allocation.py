"""The size of the KV cache: as many blocks as memory allows and all sequences can use."""

from __future__ import annotations

import torch

from fllm_backends.torch.attention import KVCache
from fllm_backends.torch.hardware import check_memory, kv_cache_budget, out_of_memory
from fllm_backends.torch.model import Decoder
from fllm_backends.torch.options import TorchConfig
from fllm_backends.torch.ranks import Ranks

_MIN_FULL_SEQUENCES, _TYPICAL_LENGTH = 3, 384
"""Size of the KV cache on a CPU: this number of full-length sequences, or all sequences at this length."""


def allocate_cache(
    decoder: Decoder,
    block_size: int,
    config: TorchConfig,
    *,
    max_num_seqs: int,
    max_model_len: int,
    ranks: Ranks | None,
) -> KVCache:
    """Allocate the KV cache of a decoder. Raise `ConfigError` if it does not fit into memory."""
    like = torch.empty(0, dtype=decoder.cache_dtype, device=decoder.device)
    on_cpu = like.device.type == "cpu"
    engines = config.local_engines if on_cpu else config.engines_per_device
    memory = config.kv_cache_memory or kv_cache_budget(like.device, engines)
    if on_cpu and ranks:
        memory //= ranks.size  # they share it
    shapes = decoder.kv_shapes
    block = sum(shape.elements for shape in shapes) * block_size * like.element_size()
    spare = on_cpu and config.kv_cache_memory is None
    blocks = _useful_blocks(block_size, max_num_seqs, config.max_model_len or max_model_len, spare=spare)
    if block:
        blocks = min(memory // block, blocks)
    if ranks:
        blocks = ranks.minimum(blocks)
    check_memory(blocks * block, "the KV cache", decoder.device)
    with out_of_memory(f"a KV cache of {blocks * block} bytes does not fit into memory"):
        return KVCache(shapes, blocks, block_size, like=like, huge_pages=config.huge_pages)


def _useful_blocks(size: int, max_num_seqs: int, length: int, *, spare: bool) -> int:
    """Return the number of blocks that all sequences use at full length.

    Return less if the memory is one that other processes need too.
    """
    full, typical = -(-length // size), -(-min(length, _TYPICAL_LENGTH) // size)
    return max(_MIN_FULL_SEQUENCES * full, max_num_seqs * typical) if spare else max_num_seqs * full
