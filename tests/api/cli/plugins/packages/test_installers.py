"""Which installer an environment has, what it is called with, and what its output says."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fllm.errors import ConfigError, PluginError
from fllm_api.cli.plugins.packages import installers
from fllm_api.cli.plugins.packages.environment import Environment, server_needs
from fllm_api.cli.plugins.packages.installer_output import explain, parse_pip_report, parse_uv_plan
from fllm_api.cli.plugins.packages.installers import Pip, Pipx, Uv, Wanted, find_installer

WANTED = Wanted(
    specifications=("acme==1.0",), constraints=Path("/c"), arguments=("--no-index",), upgrade=True
)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return an environment without pip, which neither uv nor pipx made."""
    site = tmp_path / "site-packages"
    site.mkdir()
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    return Environment(tmp_path, (site,))


def add(environment: Environment, name: str) -> None:
    metadata = environment.sites[0] / f"{name}-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Name: {name}\nVersion: 1.0\n")


def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *names: str, pip: bool) -> None:
    """Let these programs be in PATH, and pip be importable or not."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr(installers.shutil, "which", lambda name: f"/bin/{name}" if name in names else None)
    monkeypatch.setattr(installers, "find_spec", lambda name: object() if pip else None)


def test_pip_in_the_environment_comes_first(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add(environment, "pip")
    programs(monkeypatch, tmp_path, "uv", pip=True)
    assert isinstance(find_installer(environment), Pip)


def test_an_environment_of_uv_without_pip_has_uv(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs(monkeypatch, tmp_path, "uv", pip=True)
    assert isinstance(find_installer(environment), Pip)  # the one of the system
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.9.1\n")
    assert isinstance(find_installer(environment), Pip)  # uv does not see the server
    add(environment, "furiosa-llm-server")
    assert isinstance(find_installer(environment), Uv)
    programs(monkeypatch, tmp_path, "uv", pip=False)
    assert isinstance(find_installer(environment), Uv)


def test_pipx_is_used_where_it_made_the_environment(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add(environment, "pip")
    environment.pipx_metadata.write_text("{}")
    programs(monkeypatch, tmp_path, "pipx", pip=True)
    assert isinstance(find_installer(environment), Pipx)
    programs(monkeypatch, tmp_path, pip=True)
    with pytest.raises(ConfigError, match="was made by pipx, and pipx is not in PATH"):
        find_installer(environment)


def test_without_an_installer_one_line_says_so(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs(monkeypatch, tmp_path, pip=False)
    with pytest.raises(
        ConfigError, match=r"has neither pip nor uv: run .*python -m ensurepip, or install uv"
    ):
        find_installer(environment)


def test_a_python_that_its_system_manages_is_refused(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installers.sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(installers, "get_path", lambda name: str(tmp_path))
    (tmp_path / installers.MANAGED).touch()
    with pytest.raises(ConfigError, match=r"is managed by its system \(PEP 668\)"):
        find_installer(environment)


class RecordingPipx(Pipx):
    """Records its commands."""

    def __init__(self) -> None:
        super().__init__("pipx", Pip(), "furiosa-llm-server")
        self.calls: list[Sequence[Any]] = []

    def call(self, *command: str | Path, **environment: str) -> str:
        self.calls.append(command)
        return ""


def test_pipx_injects_with_the_constraints_and_removes_without_the_dependencies() -> None:
    pipx = RecordingPipx()
    pipx.install(WANTED)
    pipx.uninstall(["acme"])
    assert pipx.calls == [
        (
            *("pipx", "inject", "--force", "--pip-args=--upgrade --constraint /c --no-index"),
            *("furiosa-llm-server", "acme==1.0"),
        ),
        ("pipx", "uninject", "--leave-deps", "furiosa-llm-server", "acme"),
    ]


def test_a_program_that_fails_is_one_line() -> None:
    code = "import sys; sys.exit('ERROR: it  broke \\x1b[31m')"
    with pytest.raises(PluginError, match=r"^pip: it broke \[31m$"):
        Pip().call(sys.executable, "-c", code)


def change(name: str, url: str, *, is_direct: bool = False, **info: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "version": "1.0", "requires_dist": []},
        "download_info": {"url": url, **info},
        "is_direct": is_direct,
    }


def test_a_report_of_pip_becomes_requirements() -> None:
    report = {
        "install": [
            change("acme", "https://example.org/acme.whl"),
            change("here", "file:///p/here", is_direct=True, dir_info={}, subdirectory="python"),
            change("vcs", "https://g/r", is_direct=True, vcs_info={"vcs": "git", "commit_id": "0a1b"}),
        ]
    }
    assert parse_pip_report(json.dumps(report).encode()) == [
        "acme==1.0",
        "here @ file:///p/here#subdirectory=python",
        "vcs @ git+https://g/r@0a1b",
    ]


def test_a_plan_of_uv_becomes_requirements() -> None:
    plan = "Would install 2 packages\n - acme==1.0\n + acme==2.0\n + x.y @ file:///x\n + old==1.0 (from file:///o)\n"
    assert parse_uv_plan(plan) == ["acme==2.0", "x.y @ file:///x", "old @ file:///o"]


UV_ERROR = """Using Python 3.11.7 environment at: env
error: No solution found when resolving dependencies
  cause: Because acme depends on msgspec>=99
         and msgspec==0.22.0, it cannot be used.
"""


@pytest.mark.parametrize(
    ("stdout", "stderr", "reason"),
    [
        (
            "The conflict is caused by:\n    acme 1.0 depends on x>=9\n"
            "    The user requested (constraint) x==1\n",
            "ERROR: Cannot install acme\nERROR: ResolutionImpossible: see\n",
            "acme 1.0 depends on x>=9; but x==1 stays, because this server runs with it",
        ),
        (
            "",
            UV_ERROR,
            "No solution found when resolving dependencies Because acme depends on msgspec>=99 and "
            "msgspec==0.22.0, it cannot be used.",
        ),
        ("", "WARNING: old\nERROR: no\nERROR: matching\n", "no matching"),
        ("", "", "it failed and printed nothing"),
        ("", "x" * 2000 + "y" * 750, "x" * 250 + " ... " + "y" * 750),
    ],
)
def test_the_reason_of_a_failure_is_one_line(stdout: str, stderr: str, reason: str) -> None:
    assert explain(stdout, stderr) == reason


def test_what_the_server_needs_has_its_dependencies_and_their_own() -> None:
    needed = server_needs()
    assert {"furiosa-llm-server", "msgspec", "litestar", "pluggy", "markupsafe"} <= needed.keys()
    assert "furiosa-llm" not in needed
