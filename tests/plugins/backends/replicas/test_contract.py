"""What holds of a backend holds of several replicas of it, each in a process of its own."""

from __future__ import annotations

from fllm import Backend, BackendConfig, BackendContext, PluginConfig
from fllm.testing import ECHO_PLUGIN, BackendContract
from fllm_backends.process import process_backend
from fllm_backends.replicas import replicas_backend


class TestReplicas(BackendContract):
    prompts = ((1, 2, 3), (4, 5, 6, 7))
    supports_sampling = False
    supports_logprobs = False

    @classmethod
    def backend(cls) -> Backend:
        config = BackendConfig(model="nowhere", chain=("process", "echo"), replicas=2, max_model_len=512)
        plugins = PluginConfig(paths=(ECHO_PLUGIN,))
        return replicas_backend(
            config, BackendContext(plugins=plugins, load_backend=lambda _: process_backend)
        )
