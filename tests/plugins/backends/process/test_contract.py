"""What holds of a backend holds of it in a process of its own."""

from __future__ import annotations

from support.remote_placement import RemotePlacement

from fllm import Backend, BackendConfig, BackendContext, PluginConfig
from fllm.config import EngineNetwork
from fllm.engine_host import EngineHost
from fllm.testing import ECHO_PLUGIN, BackendContract
from fllm_backends.process.backend import process_backend


class TestBackendOverTcp(BackendContract):
    prompts = ((1, 2, 3), (4, 5, 6, 7))
    supports_sampling = False
    supports_logprobs = False

    @classmethod
    def backend(cls) -> Backend:
        config = BackendConfig(model="nowhere", chain=("echo",), max_model_len=512, placement="remote")
        plugins = PluginConfig(paths=(ECHO_PLUGIN,))
        host = EngineHost(lambda name: RemotePlacement, EngineNetwork(tls=True))
        backend = process_backend(config, BackendContext(plugins=plugins, engine_host=host))
        stop = backend.stop

        async def stop_and_close() -> None:
            await stop()
            await host.close()

        backend.stop = stop_and_close  # type: ignore[method-assign]
        return backend


class TestBackend(BackendContract):
    prompts = ((1, 2, 3), (4, 5, 6, 7))
    supports_sampling = False
    supports_logprobs = False

    @classmethod
    def backend(cls) -> Backend:
        config = BackendConfig(model="nowhere", chain=("echo",), max_model_len=512)
        return process_backend(config, BackendContext(plugins=PluginConfig(paths=(ECHO_PLUGIN,))))
