"""Damaged and unwritable files at the start: a clear error message, or the server works normally."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from support.fault_table import Seen, fault
from support.http_server import Server, command, serving
from support.server_start import START_TIMEOUT, UNQUANTIZED, error_line
from support.tiny_models import save_model, write_gguf

SMALL_FILES = 1024
"""Bytes; less than a tokenizer of single letters."""


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("gguf")
    model = save_model("Llama", directory / "original", hidden_size=64, head_dim=16)
    return write_gguf(directory / "tiny.gguf", model)


@pytest.fixture(scope="module")
def text(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the output of a server with undamaged files."""
    with serving(gguf, *UNQUANTIZED, FLLM_CACHE=str(tmp_path_factory.mktemp("undamaged"))) as server:
        return complete(server)


def complete(server: Server) -> str:
    body = {"model": httpx.get(f"{server.api}/models").json()["data"][0]["id"], "prompt": "the"}
    done = httpx.post(f"{server.api}/completions", json={**body, "max_tokens": 12, "temperature": 0})
    assert done.status_code == 200, done.text
    return str(done.json()["choices"][0]["text"])


@fault(
    "Start",
    "The disk is full while the tokenizer of a GGUF file is extracted",
    must="One line, status 2; no files are left",
)
def test_a_disk_that_fills_up_during_the_extraction(gguf: Path, tmp_path: Path, seen: Seen) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILES, SMALL_FILES))

    done = subprocess.run(
        command("serve", str(gguf), "--port", "0", *UNQUANTIZED),
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT,
        env={**os.environ, "FLLM_CACHE": str(tmp_path)},
        preexec_fn=limit,
    )
    line = error_line(done)
    assert "FLLM_CACHE" in line
    assert [*(tmp_path / "gguf").iterdir()] == []
    seen("status 2; the line names the directory and FLLM_CACHE; no files were left")


@fault(
    "Start",
    "A start is killed while it extracts the tokenizer of a GGUF file",
    must="The next start extracts it; no partial files are left",
)
def test_an_extraction_that_is_killed(gguf: Path, text: str, tmp_path: Path, seen: Seen) -> None:
    kill_while_extracting(gguf, tmp_path)
    assert [*(tmp_path / "gguf").glob(".making-*")]
    with serving(gguf, *UNQUANTIZED, FLLM_CACHE=str(tmp_path)) as server:
        assert complete(server) == text
    assert not [*(tmp_path / "gguf").glob(".making-*")]
    seen("the next start was healthy and gave the same output; the partial file was removed")


def kill_while_extracting(gguf: Path, cache: Path) -> None:
    process = subprocess.Popen(
        command("serve", str(gguf), "--port", "0", *UNQUANTIZED),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "FLLM_CACHE": str(cache)},
        start_new_session=True,
    )
    deadline = time.monotonic() + START_TIMEOUT
    while not [*cache.glob("gguf/.making-*/*")]:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@fault(
    "Start",
    "Cache files are truncated and garbled",
    must="They are created again; the output is the same",
)
def test_a_damaged_cache(gguf: Path, text: str, tmp_path: Path, seen: Seen) -> None:
    with serving(gguf, *UNQUANTIZED, FLLM_CACHE=str(tmp_path)) as server:
        assert complete(server) == text
    [directory] = (tmp_path / "gguf").iterdir()
    garble(directory / "tokenizer.json")
    (directory / "config.json").write_text("{")
    with serving(gguf, *UNQUANTIZED, FLLM_CACHE=str(tmp_path)) as server:
        assert complete(server) == text
        assert "rebuilding damaged cache entry" in server.log()
    seen("one line in the log, extracted again, the same output")


def garble(file: Path) -> None:
    """Change the end of a file without changing its size."""
    content = file.read_bytes()
    file.write_bytes(content[:-4096] + bytes(reversed(content[-4096:])))
