"""Clients against the embedded model: a tool call and its result, an object, and a stream.

Each client runs its script in ``clients``, which prints what it received, in an environment of its own. The
model is small, so calls are forced and objects have a schema. Clients without a script run the example of
docs/clients.md as it stands there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from openai import OpenAI
from support.client_environments import node_environment, python_environment
from support.clients_page import example
from support.http_server import Server, serving
from support.paths import ROOT

CLIENTS = Path(__file__).with_name("clients")
RUN_SECONDS = 300


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run the default model without options."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def interpreter() -> Path:
    """Return the interpreter of an environment with most of the Python clients."""
    return python_environment(CLIENTS / "requirements.txt")


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """Return the packages of the clients for Node."""
    return node_environment(CLIENTS / "node") / "node_modules"


def run(command: list[str | Path], directory: Path, **options: Any) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_SECONDS, cwd=directory, **options
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def python(interpreter: Path, script: str, server: Server, directory: Path) -> Any:
    return json.loads(run([interpreter, CLIENTS / script, server.api], directory))


def node(node_modules: Path, script: str, server: Server, directory: Path) -> Any:
    shutil.copytree(CLIENTS / "node", directory, dirs_exist_ok=True)
    (directory / "node_modules").symlink_to(node_modules)
    return json.loads(run(["node", script, server.api], directory))


def check_order(order: Mapping[str, Any]) -> None:
    assert UUID(order["id"])
    assert type(order["quantity"]) is int
    assert 1 <= order["quantity"] <= 9
    assert type(order["customer"]["name"]) is str
    assert type(order["customer"]["zip_code"]) is int
    assert order["size"] in ("small", "large")


def check(found: Mapping[str, Any], *ways: str, streamed: str = "Paris") -> None:
    """Check what a client received in each of its modes; ``streamed`` is part of the stream."""
    assert set(found) == set(ways)
    for received in found.values():
        check_order(received["call"])
        assert received["answer"]
        check_order(received["object"])
        assert len([piece for piece in received["pieces"] if piece]) > 1
        assert streamed in "".join(received["pieces"])


def check_context_error(found: Mapping[str, Any]) -> None:
    for received in found.values():
        assert "maximum context length is 8192 tokens" in received["context_error"]


def test_openai_for_node(node_modules: Path, server: Server, tmp_path: Path) -> None:
    check(node(node_modules, "openai_client.mjs", server, tmp_path), "zod 4", "zod 3")


def test_the_vercel_ai_sdk(node_modules: Path, server: Server, tmp_path: Path) -> None:
    check(node(node_modules, "ai_sdk_client.mjs", server, tmp_path), "openai-compatible")


def test_litellm(interpreter: Path, server: Server, tmp_path: Path) -> None:
    found = python(interpreter, "litellm_client.py", server, tmp_path)
    check(found, "openai/m", "hosted_vllm/m")
    check_context_error(found)


def test_llm(interpreter: Path, server: Server, tmp_path: Path) -> None:
    """It can't force a call, so none is expected of this model."""
    found = python(interpreter, "llm_client.py", server, tmp_path)
    check_order(found["object"])
    assert "Paris" in found["stream"]
    assert found["with a tool"].strip()


def test_langchain(interpreter: Path, server: Server, tmp_path: Path) -> None:
    found = python(interpreter, "langchain_client.py", server, tmp_path)
    check(found, "ChatOpenAI")
    check_order(found["ChatOpenAI"]["called object"])
    check_context_error(found)


def test_pydantic_ai(interpreter: Path, server: Server, tmp_path: Path) -> None:
    check(python(interpreter, "pydantic_ai_client.py", server, tmp_path), "ToolOutput", "NativeOutput")


def test_instructor(interpreter: Path, server: Server, tmp_path: Path) -> None:
    found = python(interpreter, "instructor_client.py", server, tmp_path)
    check(found, "TOOLS", "JSON_SCHEMA", streamed='{"name":')


def test_the_openai_agents_sdk(interpreter: Path, server: Server, tmp_path: Path) -> None:
    check(python(interpreter, "agents_client.py", server, tmp_path), "responses")


def test_the_anthropic_sdk(interpreter: Path, server: Server, tmp_path: Path) -> None:
    found = python(interpreter, "anthropic_client.py", server, tmp_path)
    check(found, "messages")
    assert "prompt is too long" in found["messages"]["context_error"]


def test_ollama(interpreter: Path, server: Server, tmp_path: Path) -> None:
    """Ollama's API has no forced calls, so none is expected of this model."""
    found = python(interpreter, "ollama_client.py", server, tmp_path)
    check_order(found["object"])
    for pieces in (found["pieces"], found["generated"]):
        assert len([piece for piece in pieces if piece]) > 1
        assert "Paris" in "".join(pieces)
    assert len(found["models"]) == 1
    asks, topic, length = found["answers"].values()
    assert 0 < asks["noul"] < 1
    assert topic["choice"] == max(topic["probabilities"], key=topic["probabilities"].get)
    assert set(topic["probabilities"]) == {"geography", "cooking"}
    assert sum(topic["probabilities"].values()) == pytest.approx(1)
    expected = sum(int(level) * probability for level, probability in length["probabilities"].items())
    assert length["score"] == pytest.approx(expected)


def test_llama_index(server: Server, tmp_path: Path) -> None:
    interpreter = python_environment(CLIENTS / "llama-index-requirements.txt")
    found = python(interpreter, "llama_index_client.py", server, tmp_path)
    check(found, "OpenAILike")


def example_environment(interpreter: Path, home: Path) -> dict[str, str]:
    """Return variables of examples: their programs, a home directory, and no network but this machine."""
    return {
        "PATH": f"{interpreter.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
    }


@pytest.mark.parametrize("section", ["DSPy", "AutoGen", "Haystack", "smolagents"])
def test_the_example_of_a_section(section: str, interpreter: Path, server: Server, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(example(section, "python", server))
    environment = example_environment(interpreter, tmp_path)
    answer = run([interpreter, "example.py"], tmp_path, env=environment).splitlines()[-1]
    assert "Paris" in answer


def test_hey(server: Server, tmp_path: Path) -> None:
    unpacked = ROOT / "build" / "hey" / "usr" / "bin"
    path = f"{unpacked}{os.pathsep}{os.environ['PATH']}"
    if shutil.which("hey", path=path) is None:
        assert not os.environ.get("FLLM_CI"), "hey is not installed; scripts/ci-tools fetches it"
        pytest.skip("hey is not installed; scripts/ci-tools fetches it")
    report = run(["bash", "-ec", example("hey", "sh", server)], tmp_path, env={"PATH": path})
    assert "[200]\t20 responses" in report


def test_requests_of_open_webui(server: Server) -> None:
    """It sends an empty key, and fields of its own."""
    client = OpenAI(base_url=server.api, api_key="EMPTY", default_headers={"Authorization": "Bearer"})
    (model,) = client.models.list().data
    chunks = [
        *client.chat.completions.create(
            model=model.id,
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            temperature=0,
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"chat_id": "1", "session_id": "2", "background_tasks": {"title_generation": True}},
        )
    ]
    assert "Paris" in "".join([choice.delta.content or "" for chunk in chunks for choice in chunk.choices])
    assert chunks[-1].usage is not None
