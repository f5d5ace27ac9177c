"""Options of plugins on the command line, in the environment and in the file of ``--config``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.distributions import importable, install
from support.paths import SUPPORT
from support.server_start import start_error

from fllm_api.cli.collect_env import collect_env
from fllm_api.cli.commands import root_command
from fllm_api.cli.plugins.group import plugins as plugins_command
from fllm_api.cli.plugins.show import show

PLUGIN = str(SUPPORT / "options_plugin.py")
VARIABLE = "FURIOSA_LLM_PLUGIN_OPTIONS_PLUGIN"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "fllm.toml"
    file.write_text(
        f'plugin = ["{PLUGIN}"]\nport = 9\n[plugins.options_plugin]\nname = "a"\ntags = ["b"]\nport = 1\n'
    )
    return file


def run(*arguments: str, environment: Mapping[str, str] = {}) -> Any:
    done = CliRunner().invoke(show, ["--json", *arguments], env=environment)
    assert done.exit_code == 0, done.output
    [found] = json.loads(done.stdout)
    return {each["name"]: (each["value"], each["source"]) for each in found["plugin"]["options"]}


def test_show_has_the_value_and_the_source_of_each_option(config: Path) -> None:
    arguments = ("options_plugin", "--config", str(config), "--plugin-option", "options_plugin.port=3")
    environment = {f"{VARIABLE}_TOKEN": "hunter2", f"{VARIABLE}_PORT": "2"}
    assert run(*arguments, environment=environment) == {
        "name": ("a", "file"),
        "port": (3, "command line"),
        "token": ("(secret)", "environment"),
        "tags": (["b"], "file"),
        "retry": ({"attempts": 3}, "default"),
    }


def test_show_lists_options_that_are_missing() -> None:
    assert run("options_plugin", "--plugin", PLUGIN)["name"] == (None, "default")


def test_show_prints_a_table() -> None:
    arguments = ["options_plugin", "--plugin", PLUGIN, "--plugin-option", "options_plugin.token=hunter2"]
    printed = CliRunner().invoke(show, arguments, env={"COLUMNS": "200"}).output
    [token] = [line for line in printed.splitlines() if "access token" in line]
    assert [cell.strip() for cell in token.split("│")[1:-1]] == [
        *("token", "text", "", "(secret)", "command line", "access token"),
    ]
    assert "hunter2" not in printed


def test_the_list_names_the_options() -> None:
    done = CliRunner().invoke(plugins_command, ["--plugin", PLUGIN, "--json"])
    [report] = [each for each in json.loads(done.stdout)["plugins"] if each["name"] == "options_plugin"]
    assert [each["name"] for each in report["options"]] == ["name", "port", "token", "tags", "retry"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("plugins = 3", "plugins must be tables [plugins.NAME]"),
        ('[plugins]\nacme = "x"', "plugins must be tables [plugins.NAME]"),
        ('[plugin.acme]\ntoken = "hunter2"', "write [plugins.NAME], not [plugin.NAME]"),
    ],
)
def test_a_table_in_the_wrong_place_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(content)
    done = CliRunner().invoke(show, ["metrics", "--config", str(file)], env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert message in done.output
    assert "hunter2" not in done.output


def test_a_value_without_a_key_is_refused_and_not_repeated() -> None:
    arguments = ["metrics", "--plugin-option", "token=hunter2"]
    done = CliRunner().invoke(show, arguments, env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert "'token' is not NAME.KEY=VALUE" in done.output
    assert "hunter2" not in done.output


def test_a_server_does_not_start_with_a_wrong_option(config: Path) -> None:
    arguments = ("nowhere/model", "--config", config, "--plugin-option", "options_plugin.port=0")
    assert start_error(*arguments).startswith(
        "--plugin-option options_plugin.port='0': invalid value; expected"
    )


def test_a_bug_report_hides_the_values() -> None:
    printed = CliRunner().invoke(collect_env, env={f"{VARIABLE}_NAME": "hunter2"}).output
    assert f"{VARIABLE}_NAME" in printed
    assert "hunter2" not in printed


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    source = (SUPPORT / "options_plugin.py").read_text()
    install(tmp_path, "acme", {"acme_options": source}, {"acme": "acme_options"})
    with importable(tmp_path):
        yield tmp_path


def test_a_command_receives_the_options_of_its_plugin(site: Path, config: Path) -> None:
    config.write_text('port = 9\n[plugins.acme]\nname = "file"\nport = 1\n[plugins.other]\nx = 1\n')
    command = root_command()
    arguments = ["show-name", "--config", str(config), "--plugin-option", "acme.port=3"]
    assert CliRunner().invoke(command, arguments).output == "file:3\n"
    environment = {"FURIOSA_LLM_PLUGIN_ACME_NAME": "environment"}
    assert CliRunner().invoke(command, ["show-name"], env=environment).output == "environment:8125\n"
    assert "--plugin-option" in CliRunner().invoke(command, ["show-name", "--help"]).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "acme.name=...: this option is required"),
        (("--plugin-option", "acme.port=x"), "acme.port='x': invalid value"),
        (("--plugin-option", "acme.name=a", "--plugin-option", "acne.port=1"), "did you mean 'acme'?"),
    ],
)
def test_a_command_does_not_run_with_a_wrong_option(
    site: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = CliRunner().invoke(root_command(), ["show-name", *arguments])
    assert message in str(done.exception)
    assert done.stdout == ""
