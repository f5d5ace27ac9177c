"""A server whose replicas, processes of this machine, follow the load down to none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from support import alphabet_plugin
from support.alphabet_plugin import is_alphabet
from support.fault_server import ask, assert_clean_exit, chat_body, status, wait_until
from support.http_server import Server, children, serving

from fllm.testing.echo import echo_model

SCALING = (
    *("--min-replicas", "0", "--max-replicas", "2", "--target-queued-tokens", "100"),
    *("--upscale-delay", "0.5", "--downscale-delay", "1.5", "--sse-keep-alive", "0.2"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = echo_model(tmp_path_factory.mktemp("models") / "model")
    plugin = ("--plugin", alphabet_plugin.__file__, "--backend", "alphabet", "--backend-option", "load=1")
    with serving(model, *plugin, *SCALING, "--enable-metrics") as running:
        yield running
        assert_clean_exit(running)


def replicas(server: Server) -> int:
    metrics = httpx.get(f"{server.url}/metrics", timeout=10).text
    return len(re.findall(r"^furiosa_llm:replica_ready{[^}]*} 1.0$", metrics, re.MULTILINE))


def test_an_idle_model_has_no_process_and_a_stream_waits_for_one_with_comments(server: Server) -> None:
    wait_until(lambda: not children(server), "all replicas are stopped")
    assert (status(server), status(server, "/ready")) == (200, 200)
    body = chat_body("hello", tokens=30, stream=True)
    with httpx.stream("POST", f"{server.api}/chat/completions", json=body, timeout=30) as response:
        assert response.status_code == 200
        lines = [line for line in response.iter_lines() if line]
    first = next(number for number, line in enumerate(lines) if line.startswith("data: "))
    assert first > 1
    assert all(line.startswith(":") for line in lines[:first])
    assert lines[-1] == "data: [DONE]"
    assert "".join(re.findall(r'"content":"(\w*)"', "".join(lines))) == "fghijklmnopqrstuvwxyzabcdefghi"


def test_load_adds_a_replica_and_its_end_removes_it_without_losing_a_token(server: Server) -> None:
    with ThreadPoolExecutor(24) as threads:
        asked = [threads.submit(ask, server, f"{n} says", tokens=250) for n in range(24)]
        wait_until(lambda: replicas(server) == 2, f"there are two replicas\n{server.log()}")
        texts = [each.result().json()["choices"][0]["message"]["content"] for each in asked]
    assert all(len(text) == 250 and is_alphabet(text) for text in texts)
    wait_until(lambda: not children(server), "all replicas are stopped again")
    assert "replicas: 2 instead of 1, for 24 requests" in server.log()
    assert ask(server, "again").status_code == 200
