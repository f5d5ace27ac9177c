"""``furiosa-llm plugins new``: invalid names are rejected, and the files are well formed. e2e runs them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import yaml
from support.http_server import run

from fllm.errors import ConfigError
from fllm.plugins.loader import Plugins, load_plugins
from fllm_api.cli.plugins.naming import MAX_NAME_LENGTH, PluginNames, derive_names
from fllm_api.cli.plugins.new import new, render
from fllm_api.cli.plugins.plugin_kinds import KINDS

TEXT = "kept"
STEPS = ("python -m pip install --editable '.[test]'", "pytest", "furiosa-llm plugins check .")


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins()


def create(*arguments: str) -> str:
    """Return the output of ``plugins new``, run in this process."""
    done = CliRunner().invoke(new, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refusal(*arguments: str) -> str:
    done = run("plugins", "new", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_a_project_is_written_and_the_next_steps_are_printed(kind: str, tmp_path: Path) -> None:
    output = create(kind, "acme-first", "--directory", str(tmp_path / "here"))
    files = {file.relative_to(tmp_path / "here").as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert files >= {
        "pyproject.toml",
        "README.md",
        ".gitignore",
        ".github/workflows/publish.yml",
        ".github/workflows/test.yml",
        "CHANGELOG.md",
        "src/acme_first/__init__.py",
        "src/acme_first/plugin.py",
        "src/acme_first/py.typed",
    }
    assert any(file.startswith("tests/test_") for file in files)
    assert f"Wrote {len(files)} files to {tmp_path / 'here'}" in output
    assert all(f"  {line}" in output for line in STEPS)
    assert f"  {KINDS[kind].serve.format(module='acme_first', name='acme-first').splitlines()[0]}" in output


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ab", "Acme_Widget-2", "x" * MAX_NAME_LENGTH])
def test_the_files_are_well_formed_for_short_and_long_names(
    kind: str, name: str, plugins: Plugins, tmp_path: Path
) -> None:
    files = dict(render(kind, derive_names(name, KINDS[kind], plugins)))
    assert not any("<<" in text or "<%" in text for text in files.values())
    project = tomllib.loads(files["pyproject.toml"])["project"]
    module = name.lower().replace("-", "_")
    assert project["entry-points"]["fllm"] == {name: f"{module}.plugin"}
    assert any(each.startswith("furiosa-llm-server>=") for each in project["dependencies"])
    for path, text in files.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for command in (["format", "--check"], ["check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache"]
        done = subprocess.run(ruff, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout


def test_the_workflow_is_a_github_workflow(plugins: Plugins) -> None:
    files = dict(render("routes", derive_names("acme", KINDS["routes"], plugins)))
    steps = yaml.decode(files[".github/workflows/test.yml"])["jobs"]["test"]["steps"]
    assert [step["run"].split()[0] for step in steps if "run" in step][1:] == [
        "ruff",
        "ruff",
        "mypy",
        "pytest",
        "furiosa-llm",
    ]
    assert steps[1]["with"]["python-version"] == "${{ matrix.python }}"


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("acme", PluginNames("acme", "acme", "Acme", "AcmeParser")),
        ("Acme-XML_2", PluginNames("Acme-XML_2", "acme_xml_2", "AcmeXML2", "AcmeXML2Parser")),
        ("acme-parser", PluginNames("acme-parser", "acme_parser", "AcmeParser", "AcmeParser")),
    ],
)
def test_module_and_class_follow_from_the_name(name: str, made: PluginNames, plugins: Plugins) -> None:
    assert derive_names(name, KINDS["tool-parser"], plugins) == made


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("metrics", "1acme", "a letter, then letters, digits and single - or _"),
        ("metrics", "acme--x", "single - or _"),
        ("metrics", "acme.x", "single - or _"),
        ("metrics", "ácme", "single - or _"),
        ("metrics", "", "single - or _"),
        ("metrics", "../acme", "single - or _"),
        ("metrics", "x" * (MAX_NAME_LENGTH + 1), "32 characters at most"),
        ("metrics", "class", "'class' is a Python keyword"),
        ("metrics", "json", "a module 'json' already exists"),
        ("metrics", "pytest", "a module 'pytest' already exists"),
        ("metrics", "Fllm-Parsers", "a module 'fllm_parsers' already exists"),
        (
            "tool-parser",
            "json-tool-call",
            "its class JsonToolCallParser would have the name of its base class",
        ),
        ("metrics", "collector", "its class Collector would have the name of its base class"),
        ("metrics", "test-bench", "pytest would collect its class TestBenchCollector as a test"),
        (
            "tool-parser",
            "hermes",
            "the tool-call parser 'hermes' is already registered by furiosa-llm-server",
        ),
        (
            "reasoning-parser",
            "qwen3",
            "the reasoning parser 'qwen3' is already registered by furiosa-llm-server",
        ),
        ("backend", "cuda", "the backend 'cuda' is already registered by furiosa-llm-server"),
        ("backend", "process", "the backend 'process' is already registered by furiosa-llm-server"),
    ],
)
def test_an_invalid_name_is_rejected(kind: str, name: str, message: str, plugins: Plugins) -> None:
    with pytest.raises(ConfigError) as caught:
        derive_names(name, KINDS[kind], plugins)
    assert message in caught.value.message


def test_a_name_of_another_kind_can_be_used(plugins: Plugins) -> None:
    assert derive_names("hermes", KINDS["reasoning-parser"], plugins).module == "hermes"


def test_existing_files_are_never_changed(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(TEXT)
    line = refusal("metrics", "acme-first", "--directory", str(tmp_path))
    assert f"{tmp_path} is not empty, so nothing was written" in line
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == TEXT


def test_a_directory_that_can_not_be_created_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(TEXT)
    line = refusal("metrics", "acme-first", "--directory", str(tmp_path / "file" / "acme"))
    assert "Not a directory" in line


def test_an_error_about_the_kind_lists_the_kinds() -> None:
    line = refusal("parser", "acme-first")
    assert all(kind in line for kind in KINDS)


def test_a_project_is_published_by_its_tag_without_a_secret() -> None:
    files = dict(render("tool-parser", PluginNames("acme-x", "acme_x", "AcmeX", "AcmeXParser")))
    workflow = yaml.decode(files[".github/workflows/publish.yml"])
    jobs = workflow["jobs"]
    assert workflow["permissions"] == {"contents": "read"}
    assert (jobs["publish"]["needs"], jobs["publish"]["permissions"]) == ("build", {"id-token": "write"})
    assert jobs["publish"]["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert "secrets." not in files[".github/workflows/publish.yml"]
    commands = [step.get("run", "") for step in jobs["build"]["steps"]]
    assert "python -m twine check --strict dist/*" in commands
    assert "furiosa-llm plugins check acme-x" in commands
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["keywords"] == ["furiosa-llm-plugin"]
    assert project["dependencies"] == ["furiosa-llm-server>=0.1,<1"]
    assert "FLLM_API_VERSION = 1" in files["src/acme_x/plugin.py"]
