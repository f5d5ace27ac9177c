"""`plugins lock` and `serve --locked-plugins`, with distributions that report their import."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.distributions import importable, install
from support.http_server import run

from fllm_api.cli.plugins.group import plugins as group

PLUGIN = """
from pathlib import Path
Path({mark!r}).write_text("imported")
"""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Return the file that the plugin writes when it is imported."""
    return tmp_path / "mark"


@pytest.fixture
def site(tmp_path: Path, mark: Path) -> Iterator[Path]:
    """Return a directory with one installed plugin."""
    directory = tmp_path / "site"
    install_acme(directory, mark)
    with importable(directory):
        yield directory


def install_acme(site: Path, mark: Path, version: str = "1.0") -> None:
    install(site, "acme", {"acme_mod": PLUGIN.format(mark=str(mark))}, {"acme": "acme_mod"}, version=version)


def lock(*arguments: str | Path) -> Result:
    return CliRunner().invoke(group, ["lock", *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def locked(site: Path, tmp_path: Path) -> Path:
    file = tmp_path / "plugins.lock"
    assert lock("--output", file).exception is None
    return file


def problem(locked: Path, *arguments: str | Path) -> str:
    """Return the error of a check that fails."""
    result = lock("--check", locked, *arguments)
    assert result.exception is not None
    return str(result.exception)


def test_a_lock_has_the_version_and_the_digest_of_each_file(locked: Path, mark: Path) -> None:
    [acme] = json.loads(locked.read_bytes())["distributions"]
    assert (acme["name"], acme["version"], acme["plugins"], acme["editable"]) == (
        "acme",
        "1.0",
        ["acme"],
        False,
    )
    assert set(acme["files"]) == {"acme_mod.py", "acme-1.0.dist-info/entry_points.txt"}
    assert all(digest.startswith("sha256:") and len(digest) == 71 for digest in acme["files"].values())
    assert "1 distribution as in the lock" in lock("--check", locked).output
    assert not mark.exists()


def test_without_output_it_is_printed(site: Path) -> None:
    assert json.loads(lock().output)["distributions"][0]["name"] == "acme"


def test_a_changed_file_is_named(site: Path, locked: Path) -> None:
    (site / "acme_mod.py").write_text("changed = True\n")
    assert "plugin acme (acme 1.0) was changed: acme 1.0: acme_mod.py was changed after" in problem(locked)
    assert "install it again" in str(lock().exception)


def test_a_file_that_was_changed_together_with_its_record_is_named(site: Path, locked: Path) -> None:
    source = (site / "acme_mod.py").read_text()
    install(site, "acme", {"acme_mod": source + "more = 1\n"}, {"acme": "acme_mod"})
    assert "was changed: acme_mod.py has another digest" in problem(locked)


def test_an_importable_file_among_those_of_a_package_is_named(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(site, "acme", {"acme/__init__": "", "acme/plugin": ""}, {"acme": "acme.plugin"})
    with importable(site):
        locked = tmp_path / "plugins.lock"
        lock("--output", locked)
        (site / "acme" / "plugin.abi3.so").write_bytes(b"")
        assert "was changed: acme/plugin.abi3.so was added" in problem(locked)


@pytest.mark.parametrize("module", ["acme", "acme.plugin"])
def test_a_plugin_that_would_be_imported_from_another_place_is_named(tmp_path: Path, module: str) -> None:
    site, other = tmp_path / "site", tmp_path / "other"
    install(site, "acme", {"acme/__init__": "", "acme/plugin": ""}, {"acme": module})
    (other / "acme").mkdir(parents=True)
    with importable(site):
        locked = tmp_path / "plugins.lock"
        lock("--output", locked)
        assert lock("--check", locked).exception is None
        (other / "acme" / "__init__.py").touch()
        (other / "acme" / "plugin.py").touch()
        with importable(other):
            assert f"its plugin would be imported from {other}/acme/" in problem(locked)
            assert "its plugin would be imported from" in str(lock().exception)


def test_a_module_with_the_name_of_its_distribution_is_no_file(tmp_path: Path) -> None:
    install(tmp_path / "site", "acme", {"acme": ""}, {"acme": "acme"})
    with importable(tmp_path / "site"):
        locked = json.loads(lock().output)
    assert locked["files"] == []
    assert "acme.py" in locked["distributions"][0]["files"]


def test_another_version_an_added_and_a_missing_plugin_are_named(
    site: Path, locked: Path, mark: Path
) -> None:
    install(site, "other", {"other_mod": ""}, {"other": "other_mod"})
    for file in (*site.glob("acme-1.0.dist-info/*"),):
        file.unlink()
    (site / "acme-1.0.dist-info").rmdir()
    message = problem(locked)
    assert "plugin other (other 1.0) was added: it is not in the lock" in message
    assert "plugin acme (acme 1.0) is missing" in message
    install_acme(site, mark, version="1.1")
    assert "plugin acme (acme 1.1) has another version: the lock has 1.0" in problem(locked)


def test_plugins_that_are_not_loaded_are_not_compared(site: Path, locked: Path) -> None:
    install(site, "other", {"other_mod": ""}, {"other": "other_mod"})
    assert lock("--check", locked, "--disable-plugin", "other").exception is None
    assert lock("--check", locked, "--allow-plugin", "acme").exception is None


def test_a_file_of_plugin_is_locked_by_its_name_and_digest(site: Path, tmp_path: Path) -> None:
    file, locked = tmp_path / "mine.py", tmp_path / "plugins.lock"
    file.write_text("")
    lock("--plugin", file, "--output", locked)
    assert "1 distribution and 1 file as in" in lock("--plugin", file, "--check", locked).output
    assert "plugin mine (--plugin mine.py) is missing" in problem(locked)
    file.write_text("1")
    assert "was changed: it has another digest" in problem(locked, "--plugin", file)


def test_the_sources_of_an_editable_install_are_locked(tmp_path: Path) -> None:
    site, project, locked = tmp_path / "site", tmp_path / "project", tmp_path / "plugins.lock"
    install(site, "acme", {}, {"acme": "acme_edit.plugin"})
    info = site / "acme-1.0.dist-info"
    info.joinpath("direct_url.json").write_text('{"url": "file:///p", "dir_info": {"editable": true}}')
    package = project / "acme_edit"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text("")
    with importable(site), importable(project):
        lock("--output", locked)
        [acme] = json.loads(locked.read_bytes())["distributions"]
        assert acme["editable"]
        assert {"acme_edit/__init__.py", "acme_edit/plugin.py"} <= set(acme["files"])
        (package / "plugin.py").write_text("1")
        assert "was changed: acme_edit/plugin.py has another digest" in problem(locked)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "was not written by `furiosa-llm plugins lock`"),
        ("[" * 100_000, "was not written by"),
        ('{"plugins": []}', "was not written by"),
        ('{"version": 2}', "has the format 2; this server reads 1"),
        ('{"version": 1, "distributions": [{"name": 3}]}', "was not written by"),
    ],
)
def test_a_file_that_is_not_a_lock_is_one_line(content: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "plugins.lock"
    file.write_text(content)
    assert reason in problem(file)


def test_a_locked_server_does_not_start_with_a_changed_plugin(site: Path, locked: Path, mark: Path) -> None:
    environment: dict[str, Any] = {"PYTHONPATH": str(site)}
    started = run("serve", "/nowhere", "--locked-plugins", str(locked), **environment)
    assert "/nowhere" in started.stderr  # the lock fits
    mark.unlink()
    (site / "acme_mod.py").write_text(PLUGIN.format(mark=str(mark)) + "1\n")
    refused = run("serve", FURIOSA_LLM_LOCKED_PLUGINS=str(locked), **environment)
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert "error: --locked-plugins: plugin acme (acme 1.0) was changed" in line
    assert not mark.exists()
