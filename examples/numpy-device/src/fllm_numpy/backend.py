"""The backend's factory: it checks the configuration and connects the runner to `fllm.batching`."""

from __future__ import annotations

from pathlib import Path

from fllm import Backend, BackendConfig, BackendContext, ConfigError, ModelError, backend_options
from fllm.batching import BatchedBackend
from fllm.model import locate
from fllm_numpy.options import NumpyOptions
from fllm_numpy.runner import NumpyRunner


def numpy_backend(config: BackendConfig, context: BackendContext) -> Backend:
    """Return a backend on the device. Raise `UserError` for settings that it does not support."""
    options = backend_options(config.options, NumpyOptions)
    if len(config.devices) > 1 or any(device.index for device in config.devices):
        raise ConfigError("--devices: there is only one numpy device, `numpy`")
    if config.dtype not in ("auto", "float32") or config.quantization not in (None, "none"):
        raise ConfigError("the numpy device computes in float32: leave out --dtype and --quantization")
    if config.load_format not in ("auto", "gguf"):
        raise ConfigError(f"--load-format {config.load_format!r}: the numpy device reads GGUF files")
    source = locate(config.model)
    if source.kind != "gguf":
        raise ModelError(f"{config.model!r} is a {source.kind} model; the numpy device reads GGUF files")
    runner = NumpyRunner(Path(source.location), options.kv_cache_tokens, config.max_model_len)
    return BatchedBackend(runner, config, context)
