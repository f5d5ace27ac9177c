"""Indexes of plugins, and `plugins search`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner
from support.distributions import importable, install
from support.paths import ROOT

from fllm.errors import ConfigError, PluginError
from fllm_api.cli.plugins.group import plugins as group
from fllm_api.cli.plugins.packages.index import (
    BUILT_IN,
    MAX_BYTES,
    IndexedPlugin,
    Listed,
    find_in_indexes,
    read_index,
    read_indexes,
)

ACME: dict[str, Any] = {
    "name": "acme",
    "distribution": "acme-parsers",
    "summary": "Parses the calls of Acme's models.",
    "kinds": ["tool-parser"],
    "entries": ["acme_json"],
    "homepage": "https://example.org/acme",
    "requires": {"FLLM_API_VERSION": 1, "extras": ["torch"]},
    "license": "MIT",
    "digests": {"1.0": {"acme_parsers-1.0-py3-none-any.whl": f"sha256:{'0' * 64}"}},
}


def write(file: Path, *plugins: dict[str, Any]) -> str:
    file.write_text(json.dumps({"version": 1, "plugins": plugins}))
    return str(file)


@pytest.fixture
def index(tmp_path: Path) -> str:
    return write(tmp_path / "index.json", ACME)


def search(*arguments: str) -> Any:
    result = CliRunner().invoke(group, ["search", *arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return json.loads(result.output)["plugins"] if "--json" in arguments else result.output


def test_the_index_and_the_schema_are_what_the_script_writes() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "plugin_index.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_accepts_our_index_and_what_the_server_accepts(index: str) -> None:
    schema = json.loads(BUILT_IN.with_name("plugin-index.schema.json").read_bytes())
    for file in (BUILT_IN, Path(index)):
        jsonschema.validate(json.loads(file.read_bytes()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"version": 1, "plugins": [{**ACME, "kinds": ["magic"]}]}, schema)


def test_search_shows_what_is_installed_and_what_is_needed(index: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(site, "acme-parsers", {"acme_mod": ""}, {"acme": "acme_mod"}, version="1.2")
    later = {**ACME, "name": "later", "distribution": "acme-later", "requires": {"FLLM_API_VERSION": 99}}
    other = write(tmp_path / "other.json", later)
    with importable(site):
        acme, new = search("--json", "--index", index, "--index", other, "acme CALLS")
    assert (acme["installed"], acme["built_in"], acme["supported"], acme["index"]) == (
        "1.2",
        False,
        True,
        index,
    )
    assert acme["plugin"]["requires"]["extras"] == ["torch"]
    assert (new["installed"], new["supported"]) == (None, False)


def test_search_finds_built_in_plugins_by_their_entries() -> None:
    [parsers] = search("--json", "llama3_json")
    assert (parsers["plugin"]["name"], parsers["built_in"]) == ("parsers", True)
    assert "functionary" in search("Functionary")
    assert search("no such thing at all") == "no plugin has 'no such thing at all'\n"


def test_indexes_are_read_from_the_environment_and_the_file(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "server.toml"
    config.write_text(f"index = [{index!r}]\n")
    assert [each["index"] for each in search("--json", "--config", str(config), "acme")] == [index]
    monkeypatch.setenv("FURIOSA_LLM_INDEX", index)
    assert [each["index"] for each in search("--json", "acme")] == [index]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "is not an index of plugins: Expected `object`, got `array`"),
        ('{"version": 1, "plugins": ' + "[" * 200_000, "is not an index of plugins"),
        ('{"version": 1, "plugins": [], "x": ' + '{"x":' * 200_000, "is not an index of plugins"),
        ('{"version": 2, "plugins": []}', "has the format 2; this server reads 1"),
        (json.dumps({"version": 1, "plugins": [{**ACME, "name": 3}]}), r"`str`, got `int` - at `\$.plugins"),
        (json.dumps({"version": 1, "plugins": [{**ACME, "name": "--index-url=x"}]}), "is not an index"),
        (json.dumps({"version": 1, "plugins": [{**ACME, "summary": "x\x1b[2J"}]}), "control character"),
        (json.dumps({"version": 1, "plugins": [{**ACME, "entries": ["a\u202eb"]}]}), "control character"),
        (json.dumps({"version": 1, "plugins": [{**ACME, "summary": "x" * 301}]}), "length <= 300"),
        ('{"plugins": "' + "x" * MAX_BYTES + '"}', "it is larger than 4 MiB"),
        (b"\xff\xfe", "is not an index of plugins"),
    ],
)
def test_a_hostile_index_is_one_clear_error(content: str | bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "index.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=reason) as caught:
        read_index(str(file))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("place", ["/nowhere.json", "http://127.0.0.1:9/index.json", "/dev/zero", "http://["])
def test_an_index_that_can_not_be_read_is_one_clear_error(place: str) -> None:
    with pytest.raises(ConfigError, match=r"--index .* can't be read: "):
        read_index(place)


def test_a_name_that_two_indexes_give_to_different_distributions_is_refused(
    index: str, tmp_path: Path
) -> None:
    other = write(tmp_path / "other.json", {**ACME, "distribution": "evil"})
    with pytest.raises(ConfigError, match="several distributions: acme-parsers, evil; name one"):
        find_in_indexes("acme", read_indexes([index, other]))
    assert find_in_indexes("ACME", read_indexes([index, index])) == read_indexes([index])[-1]


@pytest.mark.parametrize(
    ("place", "source", "specification"),
    [
        ("/i/index.json", None, "acme-parsers"),
        ("https://example.org/i/index.json", "w/acme.whl", "https://example.org/i/w/acme.whl"),
        ("https://example.org/i/index.json", "/etc/passwd", "https://example.org/etc/passwd"),
        ("/i/index.json", "https://example.org/acme.whl", "https://example.org/acme.whl"),
    ],
)
def test_a_source_is_relative_to_its_index(place: str, source: str | None, specification: str) -> None:
    listed = Listed(read_index_of(source), place)
    assert listed.specification == specification


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    index = str(tmp_path / "index.json")
    assert Listed(read_index_of("there"), index).specification == str(tmp_path / "there")
    with pytest.raises(PluginError, match=f"and {tmp_path}/here is not here: see https://example.org/acme"):
        _ = Listed(read_index_of("here"), index).specification


def read_index_of(source: str | None) -> Any:
    return msgspec.convert({**ACME, "source": source}, IndexedPlugin)
