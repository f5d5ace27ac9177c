"""Create the torch backend."""

from __future__ import annotations

from fllm.batching import BatchLimits
from fllm.batching.backend import BatchedBackend
from fllm.config import BackendConfig
from fllm.interfaces import Backend, BackendContext
from fllm_backends.checkpoints.download import check_local_model
from fllm_backends.torch.hardware import default_device
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner

LIMITS = {
    "cpu": BatchLimits(),
    "cuda": BatchLimits(max_num_seqs=256, max_num_batched_tokens=4096, prefill_budget=None),
}
"""Default batch limits of each device; the configuration overrides them."""


def torch_backend(config: BackendConfig, context: BackendContext) -> Backend:
    """Create a backend for one CPU or CUDA device. Raise `UserError` for an unsupported option or model."""
    torch_config = read_torch_config(config)
    check_local_model(torch_config.source, weights=not torch_config.dummy)
    device = torch_config.device or default_device()
    limits = LIMITS[device.kind]
    runner = TorchRunner(torch_config, device, limits.with_config(config).max_num_seqs)
    return BatchedBackend(runner, config, context, limits=limits)
