"""What holds of a backend holds of it in a process of its own."""

from __future__ import annotations

from fllm import Backend, BackendConfig, BackendContext, PluginConfig
from fllm.testing import ECHO_PLUGIN, BackendContract
from fllm_backends.process.backend import process_backend


class TestBackend(BackendContract):
    prompts = ((1, 2, 3), (4, 5, 6, 7))
    supports_sampling = False
    supports_logprobs = False

    @classmethod
    def backend(cls) -> Backend:
        config = BackendConfig(model="nowhere", chain=("echo",), max_model_len=512)
        return process_backend(config, BackendContext(plugins=PluginConfig(paths=(ECHO_PLUGIN,))))
