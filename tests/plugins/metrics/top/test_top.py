"""``furiosa-llm top`` with a scripted server."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fllm import EngineStats, MetricsContext
from fllm.pipeline.request_tracker import RequestTracker
from fllm.values import ModelStats
from fllm_metrics.prometheus import PrometheusCollector

TOP = [sys.executable, "-m", "fllm_api", "top"]
MODEL = "org/a-model"
DEADLINE = 60.0
"""Seconds that every wait may take."""


class FakeServer(ThreadingHTTPServer):
    """Responds to GET with its scripted pages: a status and a body."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.key: str | None = None
        self.requests = PrometheusCollector(MetricsContext(model_name=MODEL, max_model_len=4096))
        self.status: EngineStats | None = EngineStats(kv_blocks=8, kv_blocks_used=2)
        self.pages: dict[str, tuple[int, object]] = {
            "/health": (200, ""),
            "/ready": (200, ""),
            "/v1/models": (200, {"data": [{"id": MODEL, "max_model_len": 4096}]}),
            "/version": (200, {"version": "9.8.7", "backend": {"name": "torch", "device": "cuda:0"}}),
        }
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def page(self, path: str) -> tuple[int, object]:
        if path == "/metrics" and path not in self.pages:
            RequestTracker("one", [self.requests]).finish("each snapshot finds one more failure")
            return 200, self.requests.expose(self.status, "").body.decode()
        return self.pages.get(path, (404, {}))


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_GET(self) -> None:
        status, body = self.server.page(self.path)
        key = self.server.key
        if key and self.path != "/health" and self.headers["authorization"] != f"Bearer {key}":
            status, body = 401, {"error": {"message": "no"}}
        text = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(server: FakeServer) -> Iterator[FakeServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer()) as running:
        yield running


def once(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "80", **environment}
    command = [*TOP, "--once", "--interval", "0.1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=DEADLINE)


def test_once_prints_one_frame_of_plain_text(server: FakeServer) -> None:
    done = once(server.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert f"{MODEL}  context 4096  torch, cuda:0  9.8.7" in done.stdout
    assert "● ready" in done.stdout
    assert re.search(r"KV blocks +25%", done.stdout)
    assert re.search(r"failed +[1-9][\d.]*/s", done.stdout), done.stdout


def test_a_frame_fits_into_a_small_terminal(server: FakeServer) -> None:
    with_hint = once(server.url).stdout.splitlines()
    assert max(map(len, with_hint)) <= 80
    assert len(with_hint) <= 22  # two more say how to leave


def test_models_that_are_loaded_on_demand_have_a_line_each(server: FakeServer) -> None:
    server.requests = PrometheusCollector(
        MetricsContext(model_name="small", max_model_len=4096, model_names=("small", "large"))
    )
    loaded = ModelStats(state="loaded", memory=512 << 20, loads=3, in_flight=2, engine=EngineStats())
    failed = ModelStats(state="failed", waiting=7)
    server.status = EngineStats(models={"small": loaded, "large": failed})
    shown = once(server.url).stdout
    assert re.search(r"small +loaded +537 MB +2 +0 +3", shown), shown
    assert re.search(r"large +failed +0 MB +0 +7 +0", shown), shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("form", ["{}/", "{}/v1", "{}/v1/"])
def test_the_url_may_be_what_clients_use(server: FakeServer, form: str) -> None:
    assert once(form.format(server.url)).returncode == 0


def test_the_scheme_may_be_left_out(server: FakeServer) -> None:
    assert once(server.url.removeprefix("http://")).returncode == 0


def test_an_engine_that_does_not_answer_is_reported(server: FakeServer) -> None:
    server.pages["/health"] = (503, {"error": {"message": "the engine died: signal 9"}})
    done = once(server.url)
    assert done.returncode == 1
    assert "● the engine does not respond: the engine died: signal 9" in done.stdout


def test_a_server_that_drains_is_reported(server: FakeServer) -> None:
    server.pages["/ready"] = (503, {"error": {"message": "draining"}})
    done = once(server.url)
    assert done.returncode == 1
    assert "● not ready: draining" in done.stdout


def test_a_server_without_metrics_says_how_to_get_them(server: FakeServer) -> None:
    server.pages["/metrics"] = (404, {"error": {"message": "Not Found"}})
    done = once(server.url)
    assert done.returncode == 2
    assert done.stderr.endswith("exposes no metrics: start the server with --enable-metrics\n")


@pytest.mark.parametrize("body", ["<html>hello there</html>", "process_open_fds 3\n"])
def test_the_metrics_of_something_else_are_refused(server: FakeServer, body: str) -> None:
    server.pages["/metrics"] = (200, body)
    done = once(server.url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "/metrics" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [((), "requires a key: set a valid one with --api-key"), (("--api-key", "no"), "rejects this key")],
)
def test_a_key_that_is_missing_or_wrong_is_reported(
    server: FakeServer, arguments: tuple[str, ...], what: str
) -> None:
    server.key = "sesame"
    done = once(server.url, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr


def test_the_key_may_be_in_the_environment(server: FakeServer) -> None:
    server.key = "sesame"
    assert once(server.url, FURIOSA_LLM_API_KEY="sesame").returncode == 0


def test_no_server_is_one_line_and_status_1() -> None:
    with serving(FakeServer()) as gone:
        url = gone.url
    done = once(url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"furiosa-llm: error: {url}: no response: connection refused\n"


def test_a_bad_url_is_rejected() -> None:
    assert once("ftp://there").returncode == 2


def test_without_a_terminal_it_says_so(server: FakeServer) -> None:
    done = subprocess.run([*TOP, server.url], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 2
    assert "--once" in done.stderr


class Terminal:
    """A program in a terminal of 80 columns and 24 lines."""

    def __init__(self, *command: str) -> None:
        self._ours, theirs = pty.openpty()
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        # So that the terminal is the program's own, which Ctrl-C needs.
        self.process = subprocess.Popen(command, env=env, preexec_fn=lambda: os.login_tty(theirs))
        os.close(theirs)

    def wait_for(self, text: str) -> None:
        """Wait until new output contains the text."""
        deadline = time.monotonic() + DEADLINE
        seen = ""
        while text not in seen:
            assert time.monotonic() < deadline, f"{text!r} was not drawn:\n{seen}"
            seen += self._read()

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self) -> int:
        """Return the exit status; read all output until then, as a terminal does."""
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read()
        return self.process.wait(1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def _read(self) -> str:
        if not select.select([self._ours], [], [], 0.1)[0]:
            return ""
        try:
            return os.read(self._ours, 65536).decode(errors="replace")
        except OSError:  # the other side is closed
            return ""


@contextmanager
def terminal(url: str) -> Iterator[Terminal]:
    opened = Terminal(*TOP, url, "--interval", "0.1")
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03"], ids=["q", "Q", "Ctrl-C"])
def test_a_key_ends_it_well(server: FakeServer, key: bytes) -> None:
    with terminal(server.url) as screen:
        screen.wait_for("q to quit")
        screen.press(key)
        assert screen.end() == 0


def test_sigint_ends_it_well(server: FakeServer) -> None:
    with terminal(server.url) as screen:
        screen.wait_for("q to quit")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == 0


def test_a_server_that_goes_and_comes_back_is_followed() -> None:
    with serving(FakeServer()) as first:
        port = first.server_address[1]
        with terminal(first.url) as screen:
            screen.wait_for("● ")
            screen.wait_for("ready")
            first.shutdown()
            first.server_close()
            screen.wait_for("no response: connection refused")
            screen.wait_for("trying again every 0.1 s")
            with serving(FakeServer(port)):
                screen.wait_for("ready")
                screen.press(b"q")
                assert screen.end() == 0


def test_a_server_that_hangs_does_not_hang_the_keyboard() -> None:
    # It listens but never responds.
    with FakeServer() as silent, terminal(silent.url) as screen:
        screen.wait_for(f"connecting to {silent.url}; q to quit")
        screen.press(b"q")
        assert screen.end() == 0
