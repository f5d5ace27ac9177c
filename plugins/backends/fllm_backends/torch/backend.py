"""The torch backend's factory."""

from __future__ import annotations

from fllm.batching import BatchLimits
from fllm.batching.backend import BatchedBackend
from fllm.config import BackendConfig
from fllm.interfaces import Backend, BackendContext
from fllm_backends.checkpoints.download import check_local_model
from fllm_backends.torch.hardware import best_device
from fllm_backends.torch.options import read_options
from fllm_backends.torch.runner import TorchRunner

LIMITS = {
    "cpu": BatchLimits(),
    "cuda": BatchLimits(max_num_seqs=256, max_num_batched_tokens=4096, prefill_budget=None),
}
"""What one batch holds at most, unless the configuration says otherwise."""


def torch_backend(config: BackendConfig, context: BackendContext) -> Backend:
    """A decoder on one cpu or cuda device; raises `UserError` for what it can't obey or read."""
    options = read_options(config)
    check_local_model(options.source, weights=not options.dummy)
    device = options.device or best_device()
    limits = LIMITS[device.kind]
    runner = TorchRunner(options, device, limits.with_config(config).max_num_seqs)
    return BatchedBackend(runner, config, context, limits=limits)
