"""Create the torch backend."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fllm.batching import BatchLimits
from fllm.batching.backend import BatchedBackend
from fllm.batching.pooling_backend import BatchedPoolingBackend
from fllm.config import BackendConfig, Runner
from fllm.errors import ConfigError
from fllm.interfaces import Backend, BackendContext
from fllm_backends.checkpoints.download import check_local_model, fetch_tokenizer_files
from fllm_backends.checkpoints.lora import read_lora
from fllm_backends.checkpoints.pooling_config import model_pools, read_pooling_config
from fllm_backends.torch.draft_model import check_draft_model
from fllm_backends.torch.hardware import default_device, first_devices
from fllm_backends.torch.model_selection import check_model
from fllm_backends.torch.options import TorchConfig, read_torch_config
from fllm_backends.torch.pooling.runner import TorchPoolingRunner
from fllm_backends.torch.runner import TorchRunner

LIMITS = {
    "cpu": BatchLimits(),
    "cuda": BatchLimits(max_num_seqs=256, max_num_batched_tokens=4096, prefill_budget=None),
}
"""Default batch limits of each device; the configuration overrides them."""


def torch_backend(config: BackendConfig, context: BackendContext) -> Backend:
    """Create a backend for one CPU or CUDA device. Raise `UserError` for an unsupported option or model."""
    torch_config = read_torch_config(config)
    if pools(torch_config, config.runner, context):
        return _pooling_backend(torch_config, config, context)
    check_local_model(
        torch_config.source,
        weights=not torch_config.dummy,
        check=partial(check_model, config=torch_config),
    )
    check_draft_model(config, context.progress)
    for adapter in config.lora_modules:
        read_lora(Path(adapter.path), config.max_lora_rank)
    device = torch_config.device or default_device()
    limits = LIMITS[device.kind]
    slots = limits.with_config(config).max_num_seqs
    size = torch_config.tensor_parallel_size
    if size == 1:
        return BatchedBackend(TorchRunner(torch_config, device, slots), config, context, limits=limits)
    from fllm_backends.torch.sharded.runner import ShardedRunner

    devices = torch_config.devices if len(torch_config.devices) == size else first_devices(device, size)
    runner = ShardedRunner(torch_config, devices, slots)
    return BatchedBackend(runner, config, context, limits=limits)


def pools(torch_config: TorchConfig, runner: Runner, context: BackendContext) -> bool:
    """Return whether the model is served for pooling. Raise `ModelError` if its files can't be read."""
    source = torch_config.source
    if runner == "generate" or source.kind == "gguf":
        if runner == "pooling":
            raise ConfigError("--runner pooling: a GGUF file can't be served for pooling")
        return False
    if source.kind == "directory":
        return model_pools(Path(source.location), runner)
    if runner == "pooling":
        return True
    files = fetch_tokenizer_files(source.location, torch_config.revision, context.progress)
    return model_pools(files.directory, runner)


def _pooling_backend(torch_config: TorchConfig, config: BackendConfig, context: BackendContext) -> Backend:
    _check_pooling_options(torch_config, config)
    check_local_model(torch_config.source, weights=not torch_config.dummy, check=read_pooling_config)
    device = torch_config.device or default_device()
    runner = TorchPoolingRunner(torch_config, device, config.max_num_batched_tokens, config.max_num_seqs)
    return BatchedPoolingBackend(runner, config, context)


def _check_pooling_options(torch_config: TorchConfig, config: BackendConfig) -> None:
    """Raise `ConfigError` for the first option that has no effect on a model that pools."""
    given = {
        f"--quantization {torch_config.quantization}": torch_config.quantization not in (None, "none"),
        "--model-impl native": torch_config.model_impl == "native",
        "--speculative-config": torch_config.drafts,
        "--enable-lora": torch_config.enable_lora or bool(config.lora_modules),
        "--kv-offload-memory": config.kv_offload_memory is not None,
        "--kv-cache-dir": config.kv_cache_dir is not None,
        "--tensor-parallel-size, --devices": torch_config.tensor_parallel_size > 1,
        "--backend-option kv_cache_memory": torch_config.kv_cache_memory is not None,
    }
    for option, is_given in given.items():
        if is_given:
            raise ConfigError(f"{option}: a model that pools does not support it; see --runner")
