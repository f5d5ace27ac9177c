"""``furiosa-llm plugins show`` for installed third-party distributions and for built-in plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.distributions import install, one_parser
from support.http_server import run
from support.paths import SUPPORT

from fllm_api.cli.plugins.show import show as show_command

OPTIONS = """
from typing import Annotated
import msgspec
import fllm

class Options(msgspec.Struct):
    url: Annotated[str, msgspec.Meta(description="where the engine listens")]
    retries: Annotated[int, msgspec.Meta(ge=0)] = 2

@fllm.hookimpl
def fllm_backends():
    yield fllm.BackendEntry("acme", "acme_backend:make", "An engine.", devices=("xpu",), options=Options)
"""
BROKEN = """
import fllm

@fllm.hookimpl
def fllm_tool_parsers():
    yield fllm.Entry("lost", "m:a")
    1 / 0
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    install(tmp_path, "acme-backend", {"acme_backend": OPTIONS}, {"acme-plugin": "acme_backend"}, "2.1")
    install(tmp_path, "acme-broken", {"acme_broken": BROKEN}, {"broken": "acme_broken"})
    install(tmp_path, "rival", {"rival": one_parser("rival", "llama3_json")}, {"rival": "rival"})
    return tmp_path


def show(site: Path, *arguments: str, status: int = 0) -> str:
    """Return stdout of ``plugins show``, or stderr if it fails."""
    done = run("plugins", "show", *arguments, PYTHONPATH=str(site), COLUMNS="200")
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def shown(site: Path, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(show(site, "--json", *arguments))
    return found


@pytest.mark.parametrize("name", ["acme-plugin", "Acme_Backend", "acme-backend:acme-plugin", "acme"])
def test_a_plugin_is_found_by_its_name_its_distribution_both_or_an_entry(site: Path, name: str) -> None:
    [found] = shown(site, name)
    plugin = found["plugin"]
    assert (plugin["name"], plugin["distribution"], plugin["version"]) == (
        "acme-plugin",
        "acme-backend",
        "2.1",
    )
    assert (plugin["source"], plugin["hooks"], found["status"]) == ("acme_backend", ["fllm_backends"], "ok")
    [offer] = found["offers"]
    assert (offer["kind"], offer["name"], offer["target"]) == ("backend", "acme", "acme_backend:make")
    assert offer["properties"] == {"devices": ["xpu"], "isolated": True, "divides_weights": False}


def test_the_options_of_a_backend_are_shown_with_types_and_defaults(site: Path) -> None:
    [found] = shown(site, "acme")
    assert found["offers"][0]["options"] == [
        {
            "name": "url",
            "type": "text",
            "default": None,
            "required": True,
            "summary": "where the engine listens",
        },
        {"name": "retries", "type": "integer, at least 0", "default": 2, "required": False, "summary": ""},
    ]
    rows = [" ".join(line.replace("│", " ").split()) for line in show(site, "acme").splitlines()]
    assert "url text required where the engine listens" in rows
    assert "retries integer, at least 0 2" in rows


def test_our_torch_backend_declares_its_options(site: Path) -> None:
    [found] = shown(site, "torch")
    assert {option["name"] for option in found["offers"][0]["options"]} >= {"kv_cache_memory", "threads"}
    assert found["summary"].startswith("An OpenAI-compatible")


def test_the_options_of_a_placement_are_shown() -> None:
    plugin = str(SUPPORT / "remote_placement.py")
    output = CliRunner().invoke(show_command, ["remote", "--plugin", plugin], catch_exceptions=False).output
    assert "--placement-option" in output
    assert "node" in output


def test_an_entry_is_shown_alone_with_its_conflicts(site: Path) -> None:
    rival, ours = sorted(shown(site, "llama3_json"), key=lambda found: found["plugin"]["name"] != "rival")
    assert rival["plugin"]["distribution"] == "rival"
    for found in (rival, ours):
        [offer] = found["offers"]
        assert offer["name"] == "llama3_json"
        assert "disable one with --disable-plugin" in offer["conflict"]


def test_a_broken_plugin_is_shown_with_error_and_location(site: Path) -> None:
    [found] = shown(site, "broken")
    assert found["plugin"]["error"] == "fllm_tool_parsers raised ZeroDivisionError: division by zero"
    assert found["plugin"]["where"] == f"{site / 'acme_broken.py'}:7"
    assert found["offers"] == []
    text = show(site, "broken")
    assert "left out: fllm_tool_parsers raised ZeroDivisionError: division by zero" in text
    assert "acme_broken.py:7" in text


@pytest.mark.parametrize("place", ["plugins --plugin {} show mine", "plugins show mine --plugin {}"])
def test_a_file_is_shown_whether_the_option_comes_before_or_after(site: Path, place: str) -> None:
    file = site / "mine.py"
    file.write_text("def broken(:\n")
    done = run(*place.format(file).split(), COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert "left out: SyntaxError" in done.stdout
    assert f"{file}:1" in done.stdout


def test_a_disabled_plugin_is_shown_as_such(site: Path) -> None:
    [found] = shown(site, "metrics", "--disable-plugin", "metrics")
    assert (found["status"], found["plugin"]["hooks"]) == ("disabled", [])


def test_an_unknown_name_suggests_the_nearest(site: Path) -> None:
    assert "named 'toch'; did you mean 'torch'?" in show(site, "toch", status=2)
    assert "named 'xyzzy'; `furiosa-llm plugins` lists all names" in show(site, "xyzzy", status=2)


def test_json_before_a_subcommand_is_an_error(site: Path) -> None:
    done = run("plugins", "--json", "show", "torch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "put --json after 'show'" in done.stderr
