"""The plugins in ``examples/``: built, installed as third-party distributions, tested, served together."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from support.environments import call, create_environment, install
from support.paths import ROOT

from fllm.model.source import locate
from fllm.testing import Server, serving
from fllm_backends.checkpoints.model_description import read_model_description

pytestmark = pytest.mark.packaging

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/pyproject.toml"))
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""NumPy's threads busy-wait for each other, which slows down other processes on the same cores."""
FINAL_RESPONSE = "[BEGIN FINAL RESPONSE]\n"
NOW: Any = {
    "type": "function",
    "function": {
        "name": "now",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["UTC", "KST"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory: Path = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    call(*pip, "--wheel-dir", directory, *(EXAMPLES / name for name in NAMES))
    return sorted(directory.iterdir())


@pytest.fixture(scope="module")
def python(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment with all examples installed, on top of this environment."""
    interpreter = create_environment(tmp_path_factory.mktemp("environment"))
    install(interpreter, *wheels)
    return interpreter


@pytest.fixture(scope="module")
def statsd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(30)
        yield listening


@pytest.fixture(scope="module")
def server(python: Path, statsd: socket.socket) -> Iterator[Server]:
    """Run the embedded model on the NumPy device, with all other examples loaded."""
    parsers = ("--reasoning-parser", "apriel", "--tool-call-parser", "functionary_v3_1")
    to = ("--plugin-option", "statsd.host=127.0.0.1")
    port = {"FURIOSA_LLM_PLUGIN_STATSD_PORT": str(statsd.getsockname()[1])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        options = ("--devices", "numpy", "--max-model-len", "512", *parsers, *to)
        with serving(*options, **port, **ONE_THREAD) as server:
            yield server


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=server.api, api_key="EMPTY", max_retries=0)


def ask(client: OpenAI, question: str, *, begun: str = "", **options: Any) -> Any:
    """Return a greedy response; ``begun`` is its beginning, to be continued."""
    messages: list[Any] = [{"role": "user", "content": question}]
    if begun:
        messages.append({"role": "assistant", "content": begun})
        options["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
    made = client.chat.completions.create(
        model="EMPTY", messages=messages, temperature=0, max_tokens=40, **options
    )
    return made.choices[0].message


def test_each_wheel_holds_one_typed_package(wheels: list[Path]) -> None:
    assert len(wheels) == len(NAMES) == 6
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        [package] = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
        assert wheel.name.startswith(f"{package}-")
        assert {f"{package}/py.typed", f"{package}/plugin.py"} <= names


@pytest.mark.parametrize("name", NAMES)
def test_the_tests_of_an_example_pass_in_the_environment(
    name: str, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in ONE_THREAD.items():
        monkeypatch.setenv(key, value)
    shutil.copytree(EXAMPLES / name / "tests", tmp_path / "tests")
    output = call(python, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", cwd=tmp_path)
    assert " passed" in output.splitlines()[-1]
    assert "skipped" not in output


def test_all_examples_load_without_errors(python: Path) -> None:
    listed = json.loads(call(python, "-m", "fllm_api", "plugins", "--json"))["plugins"]
    assert {each["error"] for each in listed} == {None}
    found = {each["distribution"] for each in listed}
    assert found >= {
        *("fllm-apriel", "fllm-functionary", "fllm-numpy", "fllm-statsd", "fllm-cohere"),
        "fllm-context-panel",
    }


def test_output_before_the_marker_is_reasoning(client: OpenAI) -> None:
    message = ask(client, "What is the capital of France?")
    assert (message.reasoning_content, message.content) == ("The capital of France is Paris.", None)
    assert client.models.list().data[0].model_dump()["runtime_config"]["device"] == "numpy"


def test_output_after_the_marker_is_content(client: OpenAI) -> None:
    message = ask(client, "What is the capital of France?", begun=FINAL_RESPONSE)
    assert (getattr(message, "reasoning_content", None), message.content) == (
        None,
        "\nThe capital of France is Paris.",
    )


def test_a_required_call_is_written_in_the_parsers_format(client: OpenAI) -> None:
    message = ask(client, "What time is it?", begun=FINAL_RESPONSE, tools=[NOW], tool_choice="required")
    assert {call.function.name for call in message.tool_calls} == {"now"}
    assert all(json.loads(call.function.arguments)["zone"] in ("UTC", "KST") for call in message.tool_calls)


def test_the_devices_tokenizer_equals_the_converted_one(client: OpenAI) -> None:
    described = read_model_description(locate().location, None, lambda progress: None)
    texts = ["In 2024, it's 9,386,034!", "서울 😀\n\n\ttabs   and spaces", "<|im_start|>user\nhi<|im_end|>"]
    for text in texts:
        ids = {"return_token_ids": True}
        made = client.completions.create(model="EMPTY", prompt=text, max_tokens=1, extra_body=ids)
        found = made.choices[0].model_dump()["prompt_token_ids"]
        assert found == described.tokenizer.encode(text, add_special_tokens=True), text


def test_coheres_api_generates_like_chat(server: Server, client: OpenAI) -> None:
    question = {"role": "user", "content": "What is the capital of France?"}
    body = {"model": "any", "messages": [question], "temperature": 0, "max_tokens": 40}
    whole = post(server, "/v2/chat", **body)
    assert whole["finish_reason"] == "COMPLETE"
    assert whole["message"]["content"] == [
        {"type": "thinking", "thinking": ask(client, question["content"]).reasoning_content}
    ]
    streamed = httpx.post(f"{server.url}/v2/chat", json=body | {"stream": True}).text
    pieces = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: ")]
    text = "".join(
        each["delta"]["message"]["content"]["thinking"] for each in pieces if each["type"] == "content-delta"
    )
    assert text == whole["message"]["content"][0]["thinking"]


def test_errors_of_a_route_have_its_own_envelope(server: Server) -> None:
    for body, field in (({"model": "m"}, "messages"), ({"model": "m", "messages": [], "p": 3}, "messages")):
        response = httpx.post(f"{server.url}/v2/chat", json=body)
        assert (response.status_code, set(response.json())) == (400, {"id", "message"})
        assert field in response.json()["message"]


def test_statsd_receives_the_metrics_of_a_request(client: OpenAI, statsd: socket.socket) -> None:
    made = client.completions.create(model="EMPTY", prompt=[19556, 28], max_tokens=3, temperature=0)
    assert made.usage
    wanted = {f"prompt_tokens:{made.usage.prompt_tokens}|c", "requests:1|c", "generated_tokens:3|c"}
    received: set[str] = set()
    until = time.monotonic() + 30
    while not wanted <= received and time.monotonic() < until:
        lines = statsd.recv(2**16).decode().split("\n")
        received |= {line.removeprefix("fllm.SmolLM2-135M-Instruct.") for line in lines}
    assert wanted <= received


def post(server: Server, path: str, **body: Any) -> Any:
    response = httpx.post(server.url + path, json=body)
    assert response.status_code == 200, response.text
    return response.json()
