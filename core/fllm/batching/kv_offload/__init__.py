"""Blocks of the prefix cache that survive eviction, in RAM, and a restart, on disk."""

from fllm.batching.kv_offload.disk_tier import Fetch
from fllm.batching.kv_offload.offload import Found, KVOffload, check_offload, open_offload

__all__ = ["Fetch", "Found", "KVOffload", "check_offload", "open_offload"]
