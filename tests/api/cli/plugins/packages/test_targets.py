"""What the arguments of `plugins install` refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fllm.errors import UserError
from fllm_api.cli.plugins.packages.index import IndexedPlugin, Listed
from fllm_api.cli.plugins.packages.targets import requirement_name, resolve_target


def listed(index: str = "/i/index.json", **others: Any) -> list[Listed]:
    plugin = {"name": "acme", "distribution": "acme-parsers", "summary": "x", "kinds": ["routes"], **others}
    return [Listed(msgspec.convert(plugin, IndexedPlugin), index)]


@pytest.mark.parametrize(
    ("text", "specification", "name"),
    [
        ("acme", "acme-parsers", "acme-parsers"),
        ("Acme==1.0", "acme-parsers==1.0", "acme-parsers"),
        ("acme[x] >= 2, < 3", "acme-parsers[x] >= 2, < 3", "acme-parsers"),
        ("other_thing~=1.2", "other_thing~=1.2", "other-thing"),
        ("https://example.org/acme.whl", "https://example.org/acme.whl", None),
        ("git+ssh://git@example.org/a.git@v1", "git+ssh://git@example.org/a.git@v1", None),
    ],
)
def test_a_name_is_looked_up_in_the_index_first(text: str, specification: str, name: str | None) -> None:
    target = resolve_target(text, listed())
    assert (target.specification, target.name) == (specification, name)


def test_a_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "acme"
    project.mkdir()
    assert resolve_target("acme", listed()).specification == "acme-parsers"
    (project / "pyproject.toml").touch()
    assert resolve_target("acme", listed()).specification == str(project)
    assert resolve_target("./acme", []).specification == str(project)
    (tmp_path / "a.whl").touch()
    assert resolve_target("a.whl", []).specification == str(tmp_path / "a.whl")


def test_a_plugin_with_a_source_is_installed_from_there(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    found = listed(str(tmp_path / "index.json"), source="project")
    assert resolve_target("acme", found).specification == str(tmp_path / "project")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("--index-url=https://evil", "is neither a name"),
        ("a b", "is neither a name"),
        ("", "is neither a name"),
        ("acme; import os", "is neither a name"),
        ("./nowhere", "does not exist"),
        ("nowhere.whl", "does not exist"),
        ("furiosa-llm-server", "is built in"),
        ("/", "is not a project: it has no pyproject.toml"),
    ],
)
def test_what_can_not_be_installed_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        resolve_target(text, listed())


def test_a_python_file_needs_no_installation(tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    with pytest.raises(UserError, match="needs no installation: use --plugin"):
        resolve_target(str(tmp_path / "mine.py"), [])


def test_a_plugin_that_needs_a_newer_server_is_refused() -> None:
    with pytest.raises(UserError, match="acme needs version 99 of the plugin API, and this server has 1"):
        resolve_target("acme", listed(requires={"FLLM_API_VERSION": 99}))


def test_the_name_of_a_requirement_is_normalized() -> None:
    assert requirement_name("Acme_Parsers==1.0") == "acme-parsers"
    assert requirement_name("acme.x @ file:///p") == "acme-x"


def test_the_digests_of_an_index_hold_for_the_name_of_the_distribution_too() -> None:
    found = listed(digests={"1.0": {"acme_parsers-1.0.whl": f"sha256:{'0' * 64}"}})
    for text in ("acme==1.0", "Acme_Parsers==1.0"):
        assert resolve_target(text, found).listed == found[0]
    assert resolve_target("other", found).listed is None
