"""The command line with installed third-party distributions, in a new interpreter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.distributions import install, one_parser
from support.http_server import run

BACKEND = """
import fllm

@fllm.hookimpl
def fllm_backends():
    yield fllm.BackendEntry("acme", "acme_backend:make", "A third-party engine.", devices=("xpu",))
"""
COMMAND = """
import rich_click as click
import fllm

@click.command()
@click.option("--loud", is_flag=True)
def greet(loud):
    print("HELLO" if loud else "hello")

@fllm.hookimpl
def fllm_commands():
    yield fllm.Entry("greet", "acme_command:greet", "Says hello.")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return the directory that a test installs distributions into."""
    return tmp_path


def fllm(site: Path, *arguments: str, status: int = 0, **environment: str) -> str:
    """Return stdout of a command that succeeds, or stderr of one that fails."""
    done = run(*arguments, PYTHONPATH=str(site), COLUMNS="200", **environment)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if status else done.stdout


def words(text: str) -> set[str]:
    """Return the words of a help text without punctuation."""
    return set(re.findall(r"\w+", text))


def listed(site: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """Return the report of ``plugins --json`` with the plugins by name."""
    listing = json.loads(fllm(site, "plugins", "--json", *arguments, **environment))
    return {**listing, "plugins": {each["name"]: each for each in listing["plugins"]}}


def test_plugins_lists_built_in_third_party_and_broken_plugins(site: Path) -> None:
    install(
        site, "acme", {"acme_mod": one_parser("acme_mod", "acme_json")}, {"acme": "acme_mod"}, version="2.1"
    )
    install(site, "acme-broken", {"acme_broken": "print('noise')\n1 / 0"}, {"broken": "acme_broken"})
    plugins = listed(site)["plugins"]
    assert plugins["acme"]["offers"] == {"tool-call parser": ["acme_json"]}
    assert (plugins["acme"]["distribution"], plugins["acme"]["version"]) == ("acme", "2.1")
    assert plugins["broken"]["error"] == "ZeroDivisionError: division by zero"
    assert plugins["parsers"]["error"] is None
    table = fllm(site, "plugins")
    assert "acme 2.1" in table
    assert "tool-call parser: acme_json" in table
    assert "left out: ZeroDivisionError: division by zero" in table


def test_plugins_lists_names_that_are_offered_twice(site: Path) -> None:
    install(site, "acme", {"acme_mod": one_parser("acme_mod", "llama3_json")}, {"acme": "acme_mod"})
    conflict = (
        "the tool-call parser 'llama3_json' is offered by acme (plugin 'acme') and furiosa-llm-server "
        "(plugin 'parsers'); disable one with --disable-plugin parsers or FLLM_DISABLE_PLUGINS=parsers"
    )
    assert listed(site)["conflicts"] == [conflict]
    assert "conflict: the tool-call parser 'llama3_json'" in fllm(site, "plugins")


def test_a_conflict_is_an_error_only_if_the_name_is_selected(site: Path) -> None:
    install(site, "acme", {"acme_mod": one_parser("acme_mod", "llama3_json")}, {"acme": "acme_mod"})
    [line] = fllm(site, "serve", "--tool-call-parser", "llama3_json", status=2).splitlines()
    assert "offered by acme (plugin 'acme') and furiosa-llm-server (plugin 'parsers')" in line
    stopped = fllm(
        site, "serve", "/nowhere", "--tool-call-parser", "llama3_json", "--disable-plugin", "acme", status=2
    )
    assert "MODEL: " in stopped


def test_a_disabled_plugin_is_listed_and_an_unknown_one_is_reported(site: Path) -> None:
    listing = listed(site, FLLM_DISABLE_PLUGINS="metrics,nobody")
    assert listing["plugins"]["metrics"]["disabled"] is True
    assert listing["unmatched"] == ["nobody"]
    assert listed(site, "--disable-plugin", "metrics")["plugins"]["metrics"]["disabled"] is True
    assert "nobody: no plugin has this name" in fllm(site, "plugins", "--disable-plugin", "nobody")


def test_names_of_third_party_plugins_appear_in_the_help_of_serve(site: Path) -> None:
    install(site, "acme", {"acme_mod": one_parser("acme_mod", "acme_json")}, {"acme": "acme_mod"})
    install(site, "acme-backend", {"acme_backend": BACKEND}, {"backend": "acme_backend"})
    text = fllm(site, "serve", "--help")
    assert {"acme", "acme_json", "llama3_json", "torch"} <= words(text)


@pytest.mark.parametrize("before", [True, False])
def test_names_of_a_file_appear_in_the_help_of_serve(site: Path, before: bool) -> None:
    file = site / "mine.py"
    file.write_text(one_parser("mine", "mine_json"))
    if before:
        text = fllm(site, "serve", "--plugin", str(file), "--help")
    else:
        text = fllm(site, "serve", "--help", FURIOSA_LLM_PLUGIN=str(file))
    assert {"mine_json", "llama3_json"} <= words(text)


def test_a_file_is_shown_with_its_path(site: Path) -> None:
    file = site / "mine.py"
    file.write_text(one_parser("mine", "mine_json"))
    report = listed(site, "--plugin", str(file))["plugins"]["mine"]
    assert (report["source"], report["error"]) == (str(file), None)


def test_devices_of_a_third_party_backend_are_valid(site: Path) -> None:
    install(site, "acme-backend", {"acme_backend": BACKEND}, {"backend": "acme_backend"})
    unserved = fllm(site, "serve", "--devices", "rngd:0:4", status=2)
    assert "no backend supports rngd (backends: acme supports xpu; rngd supports npu; torch" in unserved
    assert "xpu, xpu:N" in fllm(site, "serve", "--devices", "xpu:zero", status=2)


def test_an_error_about_a_name_lists_plugins_that_failed_to_load(site: Path) -> None:
    install(site, "acme-broken", {"acme_broken": "1 / 0"}, {"broken": "acme_broken"})
    line = fllm(site, "serve", "--tool-call-parser", "acme_json", status=2)
    assert "there is no tool-call parser 'acme_json'" in line
    assert "failed to load: broken (see `furiosa-llm plugins`)" in line


def test_a_parser_whose_code_is_broken_is_one_line_before_the_model_loads(site: Path) -> None:
    source = one_parser("acme_nowhere", "lost")
    install(site, "acme", {"acme_lost": source}, {"acme": "acme_lost"})
    [line] = fllm(site, "serve", "--tool-call-parser", "lost", status=2).splitlines()
    assert "the tool-call parser 'lost' of acme (acme_nowhere:Parser) can't be loaded" in line


def test_a_plugin_adds_a_command(site: Path) -> None:
    install(site, "acme", {"acme_command": COMMAND}, {"acme": "acme_command"})
    assert "Says hello." in fllm(site, "--help")
    assert fllm(site, "greet", "--loud") == "HELLO\n"
    assert "No such command 'greet'" in fllm(site, "greet", status=2, FLLM_DISABLE_PLUGINS="acme")
    assert "Did you mean 'greet'?" in fllm(site, "great", status=2)


def test_a_command_that_is_no_click_command_is_one_line(site: Path) -> None:
    source = COMMAND.replace("@click.command()\n", "").replace('@click.option("--loud", is_flag=True)\n', "")
    install(site, "acme", {"acme_command": source}, {"acme": "acme_command"})
    [line] = fllm(site, "greet", status=2).splitlines()
    assert line.endswith("the command 'greet' is a function; it must be a click.Command")


def test_built_in_commands_take_precedence_over_those_of_plugins(site: Path) -> None:
    source = COMMAND.replace('Entry("greet"', 'Entry("version"')
    install(site, "acme", {"acme_command": source}, {"acme": "acme_command"})
    assert fllm(site, "version").startswith("furiosa-llm ")


@pytest.mark.parametrize("source", ["1 / 0", "raise SystemExit(7)"])
def test_commands_work_with_a_broken_plugin(site: Path, source: str) -> None:
    install(site, "acme-broken", {"acme_broken": source}, {"broken": "acme_broken"})
    assert "serve" in fllm(site, "--help")
    assert "--port" in fllm(site, "serve", "--help")
    assert "furiosa-llm" in fllm(site, "version")


def test_without_a_command_the_help_is_printed(site: Path) -> None:
    assert fllm(site) == fllm(site, "--help")


def test_version_and_collect_env_print_what_is_installed(site: Path) -> None:
    version = fllm(site, "version").split()
    assert version[0] == "furiosa-llm"
    full = fllm(site, "version", "--full")
    assert "torch " in full
    assert "litestar " in full
    output = fllm(site, "collect-env", FURIOSA_LLM_API_KEY="secret", FURIOSA_LLM_PORT="1")
    assert f"furiosa-llm-server: {version[1]}" in output
    assert "parsers: furiosa-llm-server" in output
    assert "FURIOSA_LLM_PORT: 1" in output
    assert "secret" not in output
    assert re.search(r"memory: [\d.]+ GiB, [\d.]+ GiB available", output)
    report = json.loads(fllm(site, "collect-env", "--json"))
    assert [*report] == ["Machine", "Devices", "Packages", "Plugins", "Environment"]
    assert report["Packages"]["git hash"]
