"""The options of LoRA adapters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rich_click as click

from fllm.errors import ConfigError
from fllm_api.cli.loaded_plugins import plugin_config, plugins_of
from fllm_api.cli.serve import serve
from fllm_api.cli.settings import Settings, settings_from_options

SQL = {"name": "c", "path": "/z", "base_model_name": "org/base"}


def settings(*arguments: str) -> Settings:
    with serve.make_context("serve", list(arguments)) as ctx:
        return settings_from_options(ctx.params, plugins_of(ctx), plugin_config(ctx))


def adapters(*arguments: str) -> list[tuple[int, str, str, str | None]]:
    config = settings(*arguments).backend_config
    assert config.enable_lora
    return [(each.id, each.name, each.path, each.base_model_name) for each in config.lora_modules]


@pytest.mark.parametrize(
    "arguments",
    [
        ("org/m", "--lora-modules", "a=/x", "b=/y=1", json.dumps(SQL), "--port", "1"),
        ("--lora-modules", "a=/x", "b=/y=1", json.dumps(SQL), "org/m"),
        ("org/m", "--lora-modules=a=/x", "--lora-modules", "b=/y=1", "--lora-modules", json.dumps(SQL)),
        ("org/m", "--served-model-name", "m", "n", "--lora-modules", "a=/x", "b=/y=1", json.dumps(SQL)),
    ],
)
def test_adapters_are_given_as_in_vllm(arguments: tuple[str, ...]) -> None:
    assert adapters(*arguments) == [
        (1, "a", "/x", None),
        (2, "b", "/y=1", None),
        (3, "c", "/z", "org/base"),
    ]


@pytest.mark.parametrize(
    ("value", "names"),
    [("a=/x b=/y", ["a", "b"]), (json.dumps(SQL), ["c"]), (json.dumps([SQL, "a=/x"]), ["c", "a"])],
)
def test_adapters_in_the_environment(value: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FURIOSA_LLM_LORA_MODULES", value)
    assert [name for _, name, _, _ in adapters("org/m")] == names


def test_adapters_in_the_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('lora-modules = ["a=/x", {name = "c", path = "/z"}]\nmax-loras = 2\n')
    assert [name for _, name, _, _ in adapters("org/m", "--config", str(file))] == ["a", "c"]
    assert settings("org/m", "--config", str(file)).backend_config.max_loras == 2


def test_a_relative_path_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert adapters("org/m", "--lora-modules", "a=x/y") == [(1, "a", str(tmp_path / "x/y"), None)]


@pytest.mark.parametrize(
    "value", ["a", "=/x", "a=", " =/x", '{"name": "a"}', '{"name": "a", "path": "/x", "y": 1}', "{a=/x"]
)
def test_a_malformed_adapter_is_a_usage_error(value: str) -> None:
    with pytest.raises(click.BadParameter, match="expected NAME=PATH"):
        settings("org/m", "--lora-modules", value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--lora-modules a=/x --lora-modules a=/y", "'a' is the name of another adapter or of the model"),
        ("--lora-modules m=/x --served-model-name m", "'m' is the name of another adapter"),
        ("--lora-modules m=/x --served-model-name n --served-model-name m", "'m' is the name of another"),
        ("--lora-modules a=/x b=/y --max-cpu-loras 1", "has 2 adapters, and --max-cpu-loras is 1"),
        ("--enable-runtime-lora-loading", "requires --lora-dir DIRECTORY"),
        ("--lora-dir /", "--lora-dir requires --enable-runtime-lora-loading"),
    ],
)
def test_options_that_contradict_each_other(arguments: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        settings("org/m", *arguments.split())
    assert "\n" not in caught.value.message


def test_limits_and_loading_at_run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = settings("org/m").backend_config
    assert (plain.enable_lora, plain.max_loras, plain.max_cpu_loras, plain.max_lora_rank) == (
        False,
        None,
        64,
        512,
    )
    arguments = ["--max-loras", "2", "--max-cpu-loras", "9", "--max-lora-rank", "16", "--enable-lora"]
    limited = settings("org/m", *arguments).backend_config
    assert (limited.enable_lora, limited.max_loras, limited.max_cpu_loras, limited.max_lora_rank) == (
        True,
        2,
        9,
        16,
    )
    made = settings("org/m", "--enable-runtime-lora-loading", "--lora-dir", str(tmp_path))
    assert made.backend_config.enable_lora
    assert (made.server.enable_runtime_lora_loading, made.server.lora_dirs) == (True, (tmp_path,))
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "True")
    assert settings("org/m", "--lora-dir", str(tmp_path)).server.enable_runtime_lora_loading
