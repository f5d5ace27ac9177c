"""`plugins install`, `upgrade` and `uninstall` in real environments, with pip and uv, without a network."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.distributions import build_wheel, one_parser
from support.environments import create_environment

pytestmark = pytest.mark.packaging

LOSES_TEXT = """
import fllm

class Parser:
    def __init__(self, context): pass
    def feed(self, text): return []
    def finish(self): return []

@fllm.hookimpl
def fllm_tool_parsers():
    yield fllm.Entry("acme_json", "acme_mod:Parser", "Loses all text.")
"""
HANGS = """
import os, pathlib, time
import fllm

class Parser:
    def __init__(self, context):
        pathlib.Path(os.environ["MARK"]).touch()
        time.sleep(60)

@fllm.hookimpl
def fllm_tool_parsers():
    yield fllm.Entry("hangs_json", "hangs_mod:Parser", "Hangs.")
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with wheels of plugins, and an index of them."""
    directory: Path = tmp_path_factory.mktemp("wheels")
    acme = one_parser("acme_mod", "acme_json")
    build_wheel(directory, "acme-lib", {"acme_lib/__init__": ""}, {})
    build_wheel(
        directory, "acme-parsers", {"acme_mod": acme}, {"acme": "acme_mod"}, dependencies=["acme-lib"]
    )
    build_wheel(directory, "acme-parsers", {"acme_mod": LOSES_TEXT}, {"acme": "acme_mod"}, version="2.0")
    build_wheel(directory, "hangs", {"hangs_mod": HANGS}, {"hangs": "hangs_mod"})
    build_wheel(directory, "greedy", {"greedy": ""}, {"greedy": "greedy"}, dependencies=["msgspec>=99"])
    build_wheel(directory, "rival", {"rival": acme.replace("acme_mod", "rival")}, {"rival": "rival"})
    entry = {
        "name": "acme",
        "distribution": "acme-parsers",
        "summary": "Parses the calls of Acme's models.",
        "kinds": ["tool-parser"],
        "digests": {"1.0": {"acme_parsers-1.0-py2.py3-none-any.whl": f"sha256:{'0' * 64}"}},
    }
    (directory / "wrong.json").write_text(json.dumps({"version": 1, "plugins": [entry]}))
    wheel = directory / "acme_parsers-1.0-py2.py3-none-any.whl"
    sourced = {**entry, "source": wheel.name}
    (directory / "wrong-source.json").write_text(json.dumps({"version": 1, "plugins": [sourced]}))
    entry["digests"] = {"1.0": {wheel.name: f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"}}
    (directory / "index.json").write_text(json.dumps({"version": 1, "plugins": [entry]}))
    return directory


class Installation:
    """An environment, and the commands of plugins in it."""

    def __init__(self, interpreter: Path, wheels: Path, state: Path) -> None:
        self.interpreter = interpreter
        self.site = interpreter.parents[1]
        self.mark = state / "mark"
        self.variables = {
            **os.environ,
            "XDG_STATE_HOME": str(state),
            "MARK": str(self.mark),
            "COLUMNS": "200",
            "FURIOSA_LLM_PIP_ARGS": f"--no-index --find-links {wheels}",
            "FURIOSA_LLM_INDEX": str(wheels / "index.json"),
            "UV_CACHE_DIR": str(state / "uv"),
        }

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(self.interpreter), "-m", "fllm_api", "plugins", *map(str, arguments)]

    def run(self, *arguments: str | Path, status: int = 0) -> str:
        """Run a command; return its output, or the one line that says why it fails."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        if status == 0:
            return done.stdout + done.stderr
        [line] = [line for line in done.stderr.splitlines() if line.startswith("furiosa-llm: error: ")]
        return line

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command, and wait until a check of it hangs."""
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(600):
            if self.mark.exists():
                return process
            assert process.poll() is None
            time.sleep(0.1)
        raise AssertionError("the check did not begin")

    def contents(self) -> dict[str, str]:
        """Return the digest of each file of the environment, except the lock of uv."""
        files = (path for path in self.site.rglob("*") if path.is_file() and not path.is_symlink())
        files = (path for path in files if path != self.site / ".lock")
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def plugins(self) -> dict[str, str]:
        """Return the versions of the third-party plugins, by name."""
        listing = json.loads(self.run("--json"))["plugins"]
        return {
            each["name"]: each["version"] for each in listing if each["distribution"] != "furiosa-llm-server"
        }


@pytest.fixture(params=["pip", "uv"])
def place(request: pytest.FixtureRequest, wheels: Path, tmp_path: Path) -> Installation:
    """Create an environment whose installer is pip, or uv."""
    without = "pip" if request.param == "uv" else None
    interpreter = create_environment(tmp_path / "environment", without=without)
    return Installation(interpreter, wheels, tmp_path / "state")


@pytest.fixture
def pip(wheels: Path, tmp_path: Path) -> Installation:
    """Create an environment whose installer is pip."""
    return Installation(create_environment(tmp_path / "environment"), wheels, tmp_path / "state")


def test_a_plugin_is_installed_by_its_name_and_a_failing_upgrade_is_undone_exactly(
    place: Installation,
) -> None:
    empty = place.contents()
    output = place.run("install", "acme==1.0", "--yes")
    assert "+ acme-lib 1.0" in output
    assert "plugins: acme" in output
    assert "0 failed" in output
    assert "installed acme-parsers 1.0: plugin acme: tool-call parser: acme_json" in output
    assert place.plugins() == {"acme": "1.0"}
    before = place.contents()
    message = place.run("upgrade", "acme", "--yes", status=2)
    assert "acme-parsers 2.0 fails 1 of its checks; plugins upgrade acme was undone" in message
    assert place.contents() == before
    lock = place.site / "plugins.lock"
    place.run("lock", "--output", lock)
    assert "acme-parsers 1.0 -> 2.0" in place.run("upgrade", "--all", "--yes", "--no-check")
    assert place.plugins() == {"acme": "2.0"}
    message = place.run("lock", "--check", lock, status=2)
    assert "plugin acme (acme-parsers 2.0) has another version: the lock has 1.0" in message
    lock.unlink()
    assert "removed acme-parsers" in place.run("uninstall", "acme", "--yes")
    left = [path for path in place.contents().keys() - empty.keys() if "acme_lib" not in path]
    assert left == []


def test_what_a_killed_command_changed_is_undone_by_the_next_one(pip: Installation) -> None:
    before = pip.contents()
    process = pip.start("install", "hangs", "--yes")
    assert pip.contents() != before
    process.kill()
    process.wait()
    assert "warning: plugins install hangs was interrupted, and was undone" in pip.run()
    assert pip.contents() == before
    assert "interrupted" not in pip.run()


def test_an_interrupted_command_undoes_its_change(pip: Installation) -> None:
    before = pip.contents()
    process = pip.start("install", "hangs", "--yes")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert pip.contents() == before


def test_what_can_not_be_installed_is_one_line_and_changes_nothing(pip: Installation, wheels: Path) -> None:
    before = pip.contents()
    message = pip.run("install", "greedy", "--yes", status=2)
    assert "greedy 1.0 depends on msgspec>=99; but msgspec==" in message
    assert "stays, because this server runs with it" in message
    assert "acme-lib: this registers no plugin" in pip.run("install", "acme-lib", "--yes", status=2)
    assert "No matching distribution found for nowhere" in pip.run("install", "nowhere", "--yes", status=2)
    assert "nobody can answer: add --yes" in pip.run("install", "hangs", status=2)
    closed = pip.run("install", "hangs", "--yes", "--allow-plugin", "acme", status=2)
    assert "--allow-plugin does not name the plugin hangs of hangs" in closed
    assert "'parsers' is built in" in pip.run("install", "parsers", "--yes", status=2)
    assert "parsers is built in: --disable-plugin parsers" in pip.run("uninstall", "parsers", status=2)
    for index, what in (("wrong.json", "acme==1.0"), ("wrong-source.json", "acme")):
        pip.variables["FURIOSA_LLM_INDEX"] = str(wheels / index)
        assert "hash" in pip.run("install", what, "--yes", status=2).lower()
    assert pip.contents() == before


def test_a_plugin_that_takes_a_name_of_another_is_not_kept(pip: Installation, wheels: Path) -> None:
    pip.run("install", wheels / "acme_parsers-1.0-py2.py3-none-any.whl", "--yes", "--no-check")
    before = pip.contents()
    message = pip.run("install", "rival", "--yes", status=2)
    assert "the tool-call parser 'acme_json' is offered by acme-parsers" in message
    assert "plugins install rival was undone" in message
    assert pip.contents() == before
    assert "use `furiosa-llm plugins install` with the new path" in pip.run("upgrade", "acme", status=2)
