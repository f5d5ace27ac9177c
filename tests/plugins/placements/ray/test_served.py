"""A server whose replicas run on the nodes of a Ray cluster, and the loss of each part."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec
import pytest
from support import alphabet_plugin
from support.alphabet_plugin import is_alphabet
from support.fault_server import assert_clean_exit, chat_body, has_exited, wait_until
from support.http_server import Server, run, serving
from support.ray_cluster import RayCluster, needs_ray

from fllm.testing.echo import echo_model

pytestmark = needs_ray
STREAMS = 16
TOKENS = 120
RUNS_ON = re.compile(r"replica-\d+\.\d+ runs on \S+/(\w+)")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    model = echo_model(tmp_path_factory.mktemp("models") / "model")
    return (str(model), "--plugin", alphabet_plugin.__file__, "--backend", "alphabet", "--placement", "ray")


@pytest.fixture(scope="module")
def server(arguments: tuple[str, ...], cluster: RayCluster) -> Iterator[Server]:
    """Return a server of two replicas, which serves again after each fault."""
    ray = ("--replicas", "2", "--ray-address", cluster.address, "--enable-metrics")
    with serving(*arguments, *ray, timeout=60) as running:
        yield running
        engines = engine_processes(cluster)
        assert_clean_exit(running)
        for pid in engines:
            wait_until(lambda pid=pid: has_exited(pid), "the engines end with the server")


def engine_processes(cluster: RayCluster) -> dict[int, int]:
    """Return the process ids of the engines on the cluster, with those of their actors."""
    found = {}
    for directory in Path("/proc").iterdir():
        try:
            title = (directory / "cmdline").read_bytes()
            actor = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (directory / "environ").read_bytes()
        except (OSError, ValueError, IndexError):
            continue
        if title.startswith(b"furiosa-llm engine") and cluster.mark.encode() in environment:
            found[int(directory.name)] = actor
    return found


def ready_replicas(server: Server) -> int:
    metrics = httpx.get(f"{server.url}/metrics", timeout=10).text
    return len(re.findall(r"^furiosa_llm:replica_ready{[^}]*} 1.0$", metrics, re.MULTILINE))


def stream(server: Server, prompt: str, on_text: Callable[[], None]) -> tuple[str, str]:
    """Return the text of a stream, and what its last choice says about its end."""
    text, reason = "", ""
    body = chat_body(prompt, tokens=TOKENS, stream=True)
    with httpx.stream("POST", f"{server.api}/chat/completions", json=body, timeout=60) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = msgspec.json.decode(line.removeprefix("data: "))
            assert "error" not in event, event
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
                reason = choice["finish_reason"] or ""
            on_text()
    return text, reason


def kill_actor(server: Server, cluster: RayCluster) -> None:
    os.kill(next(iter(engine_processes(cluster).values())), signal.SIGKILL)


def kill_engine(server: Server, cluster: RayCluster) -> None:
    os.kill(next(iter(engine_processes(cluster))), signal.SIGKILL)


def remove_node(server: Server, cluster: RayCluster) -> None:
    cluster.remove(RUNS_ON.findall(server.log())[-1])


@pytest.mark.parametrize("break_", [kill_actor, kill_engine, remove_node])
def test_no_stream_loses_a_token_and_the_replica_comes_back(
    server: Server, cluster: RayCluster, break_: Callable[[Server, RayCluster], None]
) -> None:
    wait_until(lambda: ready_replicas(server) == 2, "both replicas are ready")
    starts = len(RUNS_ON.findall(server.log()))
    events = 0

    def count() -> None:
        nonlocal events
        events += 1

    with ThreadPoolExecutor(STREAMS) as threads:
        streams = [threads.submit(stream, server, f"{n} says hello", count) for n in range(STREAMS)]
        wait_until(lambda: events > 20 * STREAMS or any(each.done() for each in streams), "streams begin")
        assert not any(each.done() for each in streams), [each.result() for each in streams if each.done()]
        break_(server, cluster)
        ended = [each.result() for each in streams]
    assert {(len(text), reason) for text, reason in ended} == {(TOKENS, "length")}
    assert all(is_alphabet(text) for text, _ in ended), ended
    wait_until(lambda: len(RUNS_ON.findall(server.log())) > starts, f"it is placed again\n{server.log()}")
    wait_until(lambda: ready_replicas(server) == 2, f"both replicas are ready\n{server.log()}")
    assert set(RUNS_ON.findall(server.log())[starts:]) <= {each[:8] for each in cluster.nodes}


def test_the_command_line_says_at_once_what_is_missing(
    arguments: tuple[str, ...], cluster: RayCluster
) -> None:
    absent = run("serve", "--port", "0", *arguments, "--ray-address", "127.0.0.1:9")
    assert absent.returncode == 2
    assert "there is no Ray cluster at 127.0.0.1:9" in absent.stderr
    options = ("--placement-option", "num_gpus=1", "--placement-option", "resource_timeout=0.2")
    small = run("serve", "--port", "0", *arguments, "--ray-address", cluster.address, *options)
    assert small.returncode != 0
    assert "the Ray cluster has no node with CPU 1, GPU 1 free" in small.stderr
    assert (absent.stdout, small.stdout) == ("", "")
    assert "Traceback" not in absent.stderr + small.stderr
