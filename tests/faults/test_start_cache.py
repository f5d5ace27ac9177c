"""Cache directories that others can write to, and users that can write nowhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from support.fault_table import Seen, fault
from support.http_server import command
from support.server_start import START_TIMEOUT, UNQUANTIZED, error_line
from support.tiny_models import save_model, write_gguf

from fllm.testing.server import READY_LINE
from fllm_backends.checkpoints.gguf.extract import extract
from fllm_backends.checkpoints.gguf.metadata import Metadata

IS_ROOT = os.geteuid() == 0
AS_ANOTHER_USER = (
    *("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
)
"""Runs a command as a user without an entry in passwd, who may read all files: Python's may be root's."""
NAMESPACE = ("unshare", "--mount", *(() if IS_ROOT else ("--map-root-user",)))
READ_ONLY_ROOT = (
    *(*NAMESPACE, "sh", "-c"),
    *('mount -o remount,bind,ro / && mount -t tmpfs -o ro tmpfs /dev/shm && exec "$@"', "sh"),
)

UNWRITABLE = ("prlimit", "--fsize=0:0")
"""Runs a command that can't write files, where namespaces are not permitted."""


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("cache")
    model = save_model("Llama", directory / "model", hidden_size=64, head_dim=16)
    return write_gguf(directory / "tiny.gguf", model)


@pytest.fixture(scope="module")
def converted(gguf: Path) -> Path:
    """Return the same model as a directory, from which nothing is extracted."""
    directory = gguf.parent / "model"
    extract(Metadata(gguf), directory)
    return directory


def can_run_with(prefix: Sequence[str]) -> bool:
    return subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode == 0


def serve_once(model: Path, *prefix: str, **environment: str | None) -> tuple[str, str]:
    """Start a server and send it a request; return its log and the text of the response.

    A variable that is ``None`` is not set.
    """
    process = subprocess.Popen(
        [*prefix, *serve(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env(environment),
    )
    lines, text = [], ""
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if match := READY_LINE.search(line):
            text = complete(match[1])
            process.terminate()
    process.stdout.close()
    assert process.wait(START_TIMEOUT) == 0, "".join(lines)
    return "".join(lines), text


def start_error(model: Path, *prefix: str, **environment: str | None) -> str:
    """Start a server that must fail; return its message."""
    done = subprocess.run(
        [*prefix, *serve(model)], capture_output=True, text=True, timeout=START_TIMEOUT, env=env(environment)
    )
    errors = [line for line in done.stderr.splitlines(keepends=True) if "WARNING" not in line]
    done.stderr = "".join(errors)
    return error_line(done)


def serve(model: Path) -> list[str]:
    return command("serve", str(model), "--port", "0", "--served-model-name", "m", *UNQUANTIZED)


def env(changes: dict[str, str | None]) -> dict[str, str]:
    changed = {**os.environ, "FLLM_CACHE": "", **changes}
    return {name: value for name, value in changed.items() if value is not None}


def complete(url: str) -> str:
    body = {"model": "m", "prompt": "the", "max_tokens": 12, "temperature": 0}
    response = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


@fault(
    "Start",
    "Every user of the machine can write to the cache, or to a directory above it",
    must="One line, status 2; `FLLM_TRUST_CACHE=1` uses it all the same",
)
def test_a_cache_that_every_user_can_write_to(gguf: Path, tmp_path: Path, seen: Seen) -> None:
    (tmp_path / "shared" / "cache").mkdir(parents=True)
    cache = tmp_path / "link"
    cache.symlink_to("shared/cache")
    (tmp_path / "shared").chmod(0o777)
    line = start_error(gguf, FLLM_CACHE=str(cache))
    assert f"every user can write to '{tmp_path / 'shared'}'" in line
    assert [*(tmp_path / "shared" / "cache").iterdir()] == []
    _, text = serve_once(gguf, FLLM_CACHE=str(cache), FLLM_TRUST_CACHE="1")
    assert text
    seen(f"status 2, “{line.replace(str(tmp_path), '')}”; with the variable it was used")


@fault(
    "Start",
    "Others could have changed a file in the cache, or replaced it by a link",
    must="It is not read but created again; the output is the same",
)
def test_files_that_others_could_have_changed(gguf: Path, tmp_path: Path, seen: Seen) -> None:
    cache = tmp_path / "cache"
    _, text = serve_once(gguf, FLLM_CACHE=str(cache))
    [directory] = (cache / "gguf").iterdir()
    (directory / "config.json").chmod(0o666)
    log, again = serve_once(gguf, FLLM_CACHE=str(cache))
    assert log.count("rebuilding damaged cache entry") == 1
    assert f"every user can write to '{directory / 'config.json'}'" in log
    other = tmp_path / "other.json"
    (directory / "config.json").rename(other)
    (directory / "config.json").symlink_to(other)
    log, linked = serve_once(gguf, FLLM_CACHE=str(cache))
    assert log.count("rebuilding damaged cache entry") == 1
    assert not (directory / "config.json").is_symlink()
    assert again == linked == text
    seen("one line in the log, converted again, the same output")


@fault(
    "Start",
    "The user has no entry in passwd, no HOME and may not write to the cache",
    must="It works in a directory for temporary files that only this user can write to; one line says so",
)
def test_a_user_that_can_write_nowhere(gguf: Path, tmp_path: Path, seen: Seen) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary").chmod(0o1777)
    environment = {"TMPDIR": str(tmp_path / "temporary"), "HOME": None}
    if can_run_with(AS_ANOTHER_USER):
        log, text = serve_once(gguf, *AS_ANOTHER_USER, **environment)
    else:
        log, text = serve_once(gguf, **environment, FLLM_CACHE="/proc/nothing")
    assert text
    line, stored = [line for line in log.splitlines() if "WARNING" in line]
    assert "the cache can't be written" in line
    assert "lost when the server stops" in stored
    [directory] = (tmp_path / "temporary").glob("furiosa-llm-*")
    assert directory.stat().st_mode & 0o777 == 0o700
    seen("it worked; one line: " + line.partition("fllm.cache: ")[2].replace(str(tmp_path), ""))


@fault(
    "Start",
    "The root file system is read-only, and there is no cache and nowhere to write",
    must="A model that is a directory works; otherwise one line, status 2",
)
def test_a_read_only_root_without_a_cache(gguf: Path, converted: Path, seen: Seen) -> None:
    prefix = next(filter(can_run_with, (READ_ONLY_ROOT + AS_ANOTHER_USER, READ_ONLY_ROOT, UNWRITABLE)))
    environment = {"HOME": None, "TMPDIR": "/proc/nothing"}
    line = start_error(gguf, *prefix, **environment)
    assert "FLLM_CACHE" in line
    _, text = serve_once(converted, *prefix, **environment)
    assert text
    seen(f"a GGUF file: status 2, “{line}”; another one worked")
