"""Two real models under a budget that holds one, with the official client; and lists that are invalid."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from support.http_server import run
from support.tiny_models import save_model, write_gguf

from fllm.testing import Server, serving

BUDGET = "256MiB"
"""More than one engine occupies, and less than two."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("models")
    for name in "ab":
        (directory / name).mkdir()
        model = save_model("Llama", directory / name, hidden_size=64, head_dim=16)
        write_gguf(directory / f"{name}.gguf", model)
    listed = "".join(
        f'[[models]]\nname = "{name}"\nsource = "{directory / name}.gguf"\nmemory = "200MiB"\n'
        for name in "ab"
    )
    file = directory / "models.toml"
    file.write_text(listed)
    options = ("--quantization", "none", "--max-model-len", "64", "--sse-keep-alive", "0.2")
    keys = ("--api-key", "user", "--admin-key", "sk-hidden")
    with serving("--models", file, "--memory-budget", BUDGET, *options, *keys, "--enable-metrics") as running:
        yield running


def admin(server: Server, path: str = "", method: str = "GET") -> Any:
    request = urllib.request.Request(
        f"{server.url}/admin/models{path}", headers={"Authorization": "Bearer sk-hidden"}, method=method
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def children(server: Server) -> list[str]:
    return Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()


def test_alternating_requests_are_all_answered(server: Server) -> None:
    client = openai.OpenAI(base_url=server.api, api_key="user", max_retries=0)

    def ask(number: int) -> str:
        name = "ab"[number % 2]
        stream = client.completions.create(model=name, prompt="the", max_tokens=4, stream=True)
        return {chunk.model for chunk in stream}.pop()

    with ThreadPoolExecutor(16) as threads:
        assert [*threads.map(ask, range(16))] == [*"ab" * 8]
    listed = admin(server)
    assert sum(each["loads"] for each in listed["data"]) <= 4, "requests that wait together start together"
    assert [each["in_flight"] for each in listed["data"]] == [0, 0]
    assert len([each for each in listed["data"] if each["state"] == "loaded"]) == 1


def test_an_unknown_name_is_404(server: Server) -> None:
    client = openai.OpenAI(base_url=server.api, api_key="user", max_retries=0)
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="c", messages=[{"role": "user", "content": "Hi"}])
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    assert [model.id for model in client.models.list()] == ["a", "b"]


def test_the_administrator_frees_all_memory(server: Server) -> None:
    for name in "ab":
        assert admin(server, f"/{name}/unload", "POST")["state"] == "unloaded"
    names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(server)]
    assert not any(b"engine" in name for name in names), names
    page = urllib.request.Request(f"{server.url}/metrics", headers={"Authorization": "Bearer user"})
    text = urllib.request.urlopen(page).read().decode()
    assert 'furiosa_llm:model_loaded{model_name="b"} 0.0' in text
    assert 'furiosa_llm:request_success_total{model_name="a"} 8.0' in text


def test_no_key_is_visible(server: Server) -> None:
    process = Path(f"/proc/{server.process.pid}")
    shown = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
    assert b"sk-hidden" not in shown
    assert b"furiosa-llm serve" in shown


def test_each_error_of_a_list_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[[models]]\nname = "a"\nsource = "/nowhere"\n[[models]]\nname = "b"\nport = 5\n')
    done = run("serve", "--models", str(file), timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"furiosa-llm: error: --models {file}: model 'a': '/nowhere' does not exist",
        f"furiosa-llm: error: --models {file}: model 'b': source is missing",
    ]
