"""The lifecycle of a server over a backend with scripted behaviour: start, announce, drain, stop."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.distributions import install
from support.http_server import Server, command, run, serving
from support.model_scripts import LLAMA31_WEATHER, write_script
from support.paths import SUPPORT

PLUGIN = SUPPORT / "unhealthy_plugin.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("model")
    write_script(LLAMA31_WEATHER, directory)
    return directory


def arguments(model: Path, *more: str) -> list[str]:
    return [str(model), "--plugin", str(PLUGIN), "--backend", "unhealthy", *more]


@pytest.fixture
def server(model: Path) -> Iterator[Server]:
    with serving(*arguments(model, "--served-model-name", "model")) as running:
        yield running


def ask(server: Server, tokens: int) -> httpx.Response:
    body = {"model": "m", "prompt": "Hi", "max_tokens": tokens}
    return httpx.post(f"{server.api}/completions", json=body, timeout=60)


@contextmanager
def streaming(server: Server, tokens: int) -> Iterator[Iterator[str]]:
    """Yield the lines of a stream after the first one, so that the request is in flight."""
    body = {"model": "m", "prompt": "Hi", "max_tokens": tokens, "stream": True}
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", f"{server.api}/completions", json=body) as response,
    ):
        lines = (line for line in response.iter_lines() if line)
        next(lines)
        yield lines


def wait_for_drain(server: Server) -> None:
    """Wait until the server rejects new requests."""
    deadline = time.monotonic() + 30
    while httpx.get(f"{server.url}/ready").status_code != 503:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.02)


def test_stdout_has_only_the_ready_line_with_name_and_url(model: Path) -> None:
    process = subprocess.Popen(
        command("serve", "--port", "0", *arguments(model, "--served-model-name", "acme/model")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    rest, log = process.communicate(timeout=60)
    ready = r"furiosa-llm: serving acme/model on http://localhost:\d+ \(ready in \d+\.\d s\)\n"
    assert re.fullmatch(ready, line), log
    assert (rest, process.returncode) == ("", 0)
    assert "Loading slowly" in log
    assert log.endswith("unhealthy: stopped\n")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_rejects_new_requests_drains_and_exits_0(server: Server, how: signal.Signals) -> None:
    with streaming(server, tokens=100) as lines:
        server.process.send_signal(how)
        wait_for_drain(server)
        rest = list(lines)
    assert rest[-1] == "data: [DONE]"
    assert len(rest) >= 100
    assert server.process.wait(30) == 0, server.log()
    assert "unhealthy: stopped" in server.log()


def test_a_second_signal_exits_at_once(server: Server) -> None:
    with streaming(server, tokens=50_000) as lines:
        server.process.send_signal(signal.SIGINT)
        wait_for_drain(server)
        assert server.stop(signal.SIGINT, timeout=5) == 128 + signal.SIGINT
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)


def test_a_drain_ends_after_the_shutdown_timeout(model: Path) -> None:
    with (
        serving(*arguments(model, "--shutdown-timeout", "0.2")) as server,
        streaming(server, tokens=50_000),
    ):
        assert server.stop(timeout=20) == 0, server.log()
        assert "unhealthy: stopped" in server.log()


def test_a_signal_while_the_model_loads_exits_0(model: Path) -> None:
    with subprocess.Popen(
        command("serve", "--port", "0", *arguments(model, "--backend-option", "start=slow")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "Loading slowly" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        out, log = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert log.endswith("unhealthy: stopped\n")


@pytest.mark.parametrize(
    ("start", "status", "says"),
    [("refuse", 2, "unsupported model; try another"), ("fail", 1, "the engine failed")],
)
def test_a_start_that_fails_is_one_line(model: Path, start: str, status: int, says: str) -> None:
    done = run("serve", *arguments(model, "--port", "0", "--backend-option", f"start={start}"))
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.endswith(f"furiosa-llm: error: {says}\n")
    assert "unhealthy: stopped" in done.stderr


def test_a_broken_plugin_is_a_warning_and_the_server_starts(model: Path, tmp_path: Path) -> None:
    install(tmp_path, "acme-broken", {"acme_broken": "1 / 0"}, {"broken": "acme_broken"})
    collectors = "import fllm\n@fllm.hookimpl\ndef fllm_collectors(context): 1 / 0\n"
    routes = "@fllm.hookimpl\ndef fllm_routes(): 1 / 0\n"
    install(tmp_path, "acme-late", {"acme_late": collectors + routes}, {"late": "acme_late"})
    with serving(*arguments(model), PYTHONPATH=str(tmp_path)) as server:
        assert ask(server, tokens=1).status_code == 200
        log = server.log()
    assert "plugin broken (acme-broken 1.0) is left out: ZeroDivisionError: division by zero" in log
    for hook in ("fllm_collectors", "fllm_routes"):
        assert f"{hook} of plugin acme-late:late:acme_late failed: ZeroDivisionError" in log


def test_a_model_without_a_chat_template_serves_completions(model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (bare / name).write_bytes((model / name).read_bytes())
    with serving(*arguments(bare)) as server:
        assert (
            "the model has no chat template: /v1/chat/completions requires --chat-template FILE"
            in server.log()
        )
        assert ask(server, tokens=1).status_code == 200
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        refused = httpx.post(f"{server.api}/chat/completions", json=body)
        assert refused.status_code == 400
        assert "--chat-template" in refused.json()["error"]["message"]


@pytest.mark.parametrize(("options", "warns"), [((), True), (("--api-key", "k"), False)])
def test_a_server_that_everybody_can_reach_warns_without_a_key(
    model: Path, options: tuple[str, ...], warns: bool
) -> None:
    with serving(*arguments(model, "--host", "0.0.0.0", *options)) as running:
        assert ("no API key, and --host 0.0.0.0" in running.log()) == warns


def test_the_version_is_an_option_too() -> None:
    by_option, by_command = run("--version"), run("version")
    assert (by_option.returncode, by_option.stdout) == (0, by_command.stdout)
