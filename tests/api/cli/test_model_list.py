"""``--models`` and ``--model`` list several models, which are all validated before one is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from fllm import ConfigError
from fllm.config import Device
from fllm.errors import ConfigErrors, UserError
from fllm.model.source import DEFAULT_NAME
from fllm_api.cli.loaded_plugins import plugin_config, plugins_of
from fllm_api.cli.model_list import settings_of_models
from fllm_api.cli.model_size import ENGINE_BYTES, estimate_memory
from fllm_api.cli.serve import check_files, serve
from fllm_api.cli.settings import Settings


def models(*arguments: str) -> tuple[Settings, ...]:
    """Return the settings of each model for arguments of ``furiosa-llm serve``."""
    with serve.make_context("serve", list(arguments)) as ctx:
        plugins = plugins_of(ctx)
        return settings_of_models(ctx, plugins, plugin_config(ctx), lambda each: check_files(each, plugins))


def a_file(directory: Path, text: str) -> str:
    file = directory / "models.toml"
    file.write_text(text)
    return str(file)


def a_model(directory: Path, name: str) -> Path:
    model = directory / name
    model.mkdir()
    (model / "config.json").write_text("{}")
    return model


def test_the_command_line_names_models(tmp_path: Path) -> None:
    source = a_model(tmp_path, "one")
    made = models(
        "--model", f"a={source}", "--model", f"b={DEFAULT_NAME}", "--max-model-len", "99", "--pin", "b"
    )
    assert [each.server.served_model_name for each in made] == ["a", "b"]
    assert made[0].backend_config.model == str(source)
    assert made[1].backend_config.model.endswith(".gguf")
    assert [each.backend_config.max_model_len for each in made] == [99, 99]
    assert [each.pinned for each in made] == [False, True]


def test_without_a_list_there_is_one_model() -> None:
    [only] = models("--model-idle-timeout", "5")
    assert (only.server.served_model_name, only.idle_timeout) == (DEFAULT_NAME, 5.0)


def test_the_only_model_can_be_pinned() -> None:
    [only] = models("--pin", DEFAULT_NAME)
    assert only.pinned
    with pytest.raises(ConfigErrors, match="--pin other: there is no model of this name"):
        models("--pin", "other")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("max-model-len = {a = 1}", "not a valid integer"),
        ("max-model-len = 1979-05-27", "'1979-05-27' is not a valid integer"),
        ("max-model-len = 7.5", "'7.5' is not a valid integer"),
        ("max-model-len = true", "'True' is not a valid integer"),
        ("dtype = [1]", "is not one of"),
        ("chat-template = 5", "File '5' does not exist"),
        ("devices = 5", "5"),
        ("grammar-backend = [1]", "there is no grammar backend"),
        ('name = ["a"]', r"name \['a'\] is not a text"),
    ],
)
def test_a_value_of_a_wrong_type_is_a_clear_error(tmp_path: Path, line: str, problem: str) -> None:
    name = "" if line.startswith("name") else 'name = "a"\n'
    with pytest.raises(ConfigErrors, match=problem):
        models("--models", a_file(tmp_path, f'[[models]]\n{name}source = "org/a"\n{line}'))


def test_flags_of_a_model_are_booleans(tmp_path: Path) -> None:
    text = '[[models]]\nname = "a"\nsource = "org/a"\npin = false\nenable-prefix-caching = {}'
    for value in ("true", "false"):
        [only] = models("--models", a_file(tmp_path, text.format(value)))
        assert (only.pinned, only.backend_config.enable_prefix_caching) == (False, value == "true")


def test_a_file_has_the_options_of_each_model(tmp_path: Path) -> None:
    a_model(tmp_path, "one")
    adapter = tmp_path / "adapter"
    file = a_file(
        tmp_path,
        f"""
[[models]]
name = "a"
source = "{tmp_path / "one"}"
served-model-name = ["aa", "aaa"]
max-model-len = 512
dtype = "half"
devices = "cuda:1"
tool-call-parser = "hermes"
lora-modules = ["sql={adapter}"]
default-chat-template-kwargs = {{ enable_thinking = false }}
engine-process = false
pin = true
memory = "2GiB"
idle-timeout = 60

[[models]]
name = "b"
source = "org/b"
""",
    )
    a, b = models("--models", file, "--max-model-len", "99", "--model-idle-timeout", "9")
    assert (a.server.served_model_name, a.server.served_model_aliases) == ("a", ("aa", "aaa"))
    config = a.backend_config
    assert (config.max_model_len, config.dtype, config.devices) == (512, "float16", (Device("cuda", 1),))
    assert a.server.tool_call_parser == "hermes"
    assert a.server.default_chat_template_kwargs == {"enable_thinking": False}
    assert [(each.name, each.path) for each in config.lora_modules] == [("sql", str(adapter))]
    assert (a.backend, a.pinned, a.memory, a.idle_timeout) == ("torch", True, 2 * 2**30, 60.0)
    assert (b.backend_config.max_model_len, b.backend, b.idle_timeout) == (99, "process", 9.0)
    assert b.backend_config.lora_modules == ()


@pytest.mark.parametrize(
    "text",
    [
        '[models.a]\nsource = "org/a"\n[models.b]\nsource = "org/b"\nmax-model-len = 7',
        '[[models]]\nname = "a"\nsource = "org/a"\n[[models]]\nname = "b"\nsource = "org/b"\n'
        "[models.options]\nmax_model_len = 7",
    ],
    ids=["named tables", "a table of options"],
)
def test_a_file_can_have_other_forms(tmp_path: Path, text: str) -> None:
    made = models("--models", a_file(tmp_path, text))
    assert [(each.server.served_model_name, each.backend_config.max_model_len) for each in made] == [
        ("a", None),
        ("b", 7),
    ]


def test_all_errors_of_a_file_are_found_at_once(tmp_path: Path) -> None:
    file = a_file(
        tmp_path,
        """
[[models]]
name = "a"
source = "/nowhere/a"
[[models]]
name = "b"
source = "org/b"
max-modellen = 5
[[models]]
name = "b"
source = "org/c"
[[models]]
source = "org/d"
[[models]]
name = "e"
[[models]]
name = "f"
source = "org/f"
dtype = "float3"
[[models]]
name = "g"
source = "org/g"
served-model-name = "h"
[[models]]
name = "h"
source = "org/h"
[[models]]
name = "i"
source = "org/i"
port = 80
""",
    )
    with pytest.raises(ConfigErrors) as caught:
        models("--models", file, "--pin", "nobody")
    where = f"--models {file}: model"
    assert set(caught.value.messages) == {
        f"{where} 'b': the name is used twice",
        "--pin nobody: there is no model of this name",
        f"{where} 'a': '/nowhere/a' does not exist",
        f"{where} 'b': unknown key 'max-modellen'; did you mean 'max-model-len'?",
        f"{where} 4: name is missing",
        f"{where} 'e': source is missing",
        f"{where} 'f': Invalid value for '--dtype': 'float3' is not one of 'auto', 'float16', 'bfloat16', "
        "'float32', 'half', 'float'.",
        "'h' is a name of several models: g, h",
        f"{where} 'i': unknown key 'port'",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("models = 5", "lists no model"),
        ("", "lists no model"),
        ("[[models]]\nname =", "is not TOML"),
        ('port = 5\n[[models]]\nname = "a"', "has the unknown key 'port'"),
        ("models = [5]", "5 is not a table"),
    ],
)
def test_a_file_that_is_no_list_of_models_is_rejected(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        models("--models", a_file(tmp_path, text))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("org/m", "--model", "a=org/a"), r"MODEL \(org/m\) can't be combined"),
        (("--model", "a=org/a", "--served-model-name", "x"), "--served-model-name concerns one model"),
        (("--model", "a=org/a", "--model", "a=org/b"), "the name is used twice"),
        (
            ("--model", "a=org/a", "--model", "b=org/b", "--lora-modules", "x=/x"),
            "--lora-modules x: name the",
        ),
        (("--model", "a"), "'a' is not NAME=SOURCE"),
    ],
)
def test_options_that_do_not_fit_together_are_rejected(arguments: tuple[str, ...], problem: str) -> None:
    with pytest.raises((UserError, Exception), match=problem):
        models(*arguments)


def test_an_adapter_on_the_command_line_names_its_model() -> None:
    module = '{"name": "x", "path": "/x", "base_model_name": "b"}'
    a, b = models("--model", "a=org/a", "--model", "b=org/b", "--lora-modules", module)
    assert (a.backend_config.lora_modules, a.backend_config.enable_lora) == ((), False)
    assert [each.name for each in b.backend_config.lora_modules] == ["x"]


def test_the_memory_of_a_model_is_estimated_from_its_files(tmp_path: Path) -> None:
    model = a_model(tmp_path, "one")
    (model / "a.safetensors").write_bytes(b"x" * 1000)
    (model / "b.safetensors").write_bytes(b"x" * 500)
    (model / "pytorch_model.bin").write_bytes(b"x" * 9999)
    in_process, hub = models("--model", f"a={model}", "--model", "b=org/b", "--no-engine-process")
    assert (estimate_memory(in_process), estimate_memory(hub)) == (1500, 0)
    [only] = models("--model", f"a={model}")
    assert estimate_memory(only) == 1500 + ENGINE_BYTES
    [divided] = models("--model", f"a={model}", "-tp", "2", "--replicas", "3")
    assert estimate_memory(divided) == 3 * (1500 + 2 * ENGINE_BYTES), "each rank is a process"
