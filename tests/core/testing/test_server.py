"""Real servers for tests, shared by their arguments, and the pytest plugin that provides them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from fllm.testing import ECHO_PLUGIN, Serve, Server, echo_model, serving

ECHO = ("--plugin", ECHO_PLUGIN, "--backend", "echo")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return echo_model(tmp_path_factory.mktemp("echo"))


def complete(server: Server, text: str) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 100}
    response = httpx.post(f"{server.api}/chat/completions", json=body, timeout=30).raise_for_status()
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


def test_the_echo_backend_returns_the_last_message(serve: Serve, model: Path) -> None:
    server = serve(model, *ECHO)
    assert complete(server, "Hello, 서울 👩\u200d🚀!") == "Hello, 서울 👩\u200d🚀!"
    assert server.url in server.log()


def test_servers_are_shared_by_arguments_and_one_that_ended_is_started_again(
    serve: Serve, model: Path
) -> None:
    server = serve(model, *ECHO)
    assert serve(model, *ECHO) is server
    other = serve(model, *ECHO, "--served-model-name", "other", FURIOSA_LLM_LOG_LEVEL="warning")
    assert other is not server
    assert other.stop() == 0
    again = serve(model, *ECHO, "--served-model-name", "other", FURIOSA_LLM_LOG_LEVEL="warning")
    assert again is not other
    assert httpx.get(f"{again.url}/health").status_code == 200
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_server_that_does_not_start_is_shown_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"ended before it was ready:(.|\n)*no backend 'ecco'"):  # noqa: SIM117
        with serving(tmp_path, "--backend", "ecco"):
            pass


def test_a_server_that_is_too_slow_is_shown_with_its_log(model: Path) -> None:
    with pytest.raises(AssertionError, match=r"is not ready after 0\.01 s"):  # noqa: SIM117
        with serving(model, *ECHO, timeout=0.01):
            pass


SUITE = """
import urllib.request
from fllm.testing import ECHO_PLUGIN, echo_model

def test_the_server_is_healthy(serve, tmp_path_factory):
    server = serve(echo_model(tmp_path_factory.mktemp("model")), "--plugin", ECHO_PLUGIN, "--backend", "echo")
    assert urllib.request.urlopen(f"{server.url}/health").status == 200
"""
WITHOUT_HYPOTHESIS = """
import sys
import pytest

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hypothesis":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
sys.exit(pytest.main(["-p", "fllm", "-p", "no:cacheprovider"]))
"""


def test_the_fixture_works_in_a_third_party_suite_without_hypothesis(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HYPOTHESIS],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_pytest_plugin_imports_no_heavy_modules() -> None:
    code = "import fllm.pytest_plugin, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "fllm.pytest_plugin" in loaded
    assert not loaded & {"fllm.testing", "hypothesis", "asyncio", "tokenizers", "jinja2", "litestar", "torch"}
