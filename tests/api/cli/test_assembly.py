"""Which models stay loaded, and which are loaded on demand."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

from fllm import ConfigError
from fllm.concurrency.timeout_executor import TimeoutExecutor
from fllm.engine_host import EngineHost
from fllm.testing.echo import ECHO_PLUGIN, echo_model
from fllm_api.app import create_models_app
from fllm_api.cli.assembly import create_registry, create_server_state
from fllm_api.cli.loaded_plugins import plugin_config, plugins_of
from fllm_api.cli.model_list import settings_of_models
from fllm_api.cli.model_loader import COLLECT_DELAY, SettingsLoader
from fllm_api.cli.serve import serve
from fllm_api.model_registry import ModelRegistry


def registry(*arguments: str) -> ModelRegistry:
    """Return the models of a server with these arguments; the first is started if it is the only one."""
    with serve.make_context("serve", ["--plugin", ECHO_PLUGIN, "--backend", "echo", *arguments]) as ctx:
        plugins = plugins_of(ctx)
        models = settings_of_models(ctx, plugins, plugin_config(ctx), lambda each: None)
    loaders = [SettingsLoader(each, plugins, EngineHost(), TimeoutExecutor("t")) for each in models]

    async def go() -> ModelRegistry:
        started = None
        if len(loaders) == 1:
            started = await loaders[0].start(loaders[0].new_backend(lambda _: None, ()))
        shared = create_server_state(loaders, plugins, started)
        for each in loaders:
            each.share(shared)
        made = create_registry(loaders, shared, started)
        create_models_app(shared, made)
        return made

    return asyncio.run(go())


def test_the_only_model_stays_loaded(tmp_path: Path) -> None:
    source = str(echo_model(tmp_path / "m"))
    assert not registry(source).selects
    for option in (("--strict-model-name",), ("--admin-key", "k"), ("--model-idle-timeout", "5")):
        made = registry(source, *option)
        assert made.selects
        assert made.models[0].model.state == "loaded"


def test_several_models_are_loaded_on_demand(tmp_path: Path) -> None:
    for name in "ab":
        echo_model(tmp_path / name)
    made = registry("--model", f"a={tmp_path / 'a'}", "--model", f"b={tmp_path / 'b'}", "--pin", "b")
    assert [each.model.state for each in made.models] == ["unloaded", "unloaded"]
    assert [each.model.pinned for each in made.models] == [False, True]

    async def load_twice() -> None:
        async with made.use(made.models[0], "c") as state:
            assert state.config.served_model_name == "a"
            assert state.backend_name == "echo"
        await made.pool.unload(made.models[0].model)
        async with made.use(made.models[0], "c") as again:
            assert again is not state
        assert made.models[0].model.loads == 2
        await made.pool.close()

    asyncio.run(load_twice())


def test_an_unloaded_model_leaves_nothing_in_memory(tmp_path: Path) -> None:
    for name in "ab":
        echo_model(tmp_path / name)
    made = registry("--model", f"a={tmp_path / 'a'}", "--model", f"b={tmp_path / 'b'}")

    async def load_and_unload() -> None:
        async with made.use(made.models[0], "c") as state:
            tokenizer = weakref.ref(state.tokenizer)
            state.tokenizer.token_bytes(1)  # which it caches
        del state
        await made.pool.unload(made.models[0].model)
        await asyncio.sleep(COLLECT_DELAY + 0.1)
        assert tokenizer() is None
        await made.pool.close()

    gc.disable()
    try:
        asyncio.run(load_and_unload())
    finally:
        gc.enable()


def test_pinned_models_must_leave_memory_for_the_others(tmp_path: Path) -> None:
    models = []
    for name in "ab":
        weights = echo_model(tmp_path / name) / "model.safetensors"
        weights.write_bytes(b"x" * 2**20)
        models += ["--model", f"{name}={tmp_path / name}"]
    with pytest.raises(ConfigError, match="--memory-budget: the pinned models 'a' take 1 MiB of the memory"):
        registry(*models, "--pin", "a", "--memory-budget", "1500KiB")
