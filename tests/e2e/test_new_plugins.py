"""The projects that ``plugins new`` writes: built, installed, tested there, and served."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from openai import OpenAI
from support.environments import call, create_environment, install
from support.model_scripts import SCRIPTED_PLUGIN, Script, write_script

from fllm.testing import Server, serving
from fllm_api.cli.plugins.new import new
from fllm_api.cli.plugins.plugin_kinds import KINDS

pytestmark = pytest.mark.packaging

SCRIPT = Script(
    "reasoning-and-call",
    (
        "<reason>", "It", " rains", ".", "</reason>", "\n", "I look", " it up.", "<call>", '{"name": "get',
        '_weather", "', 'arguments": {"city"', ': "서울"}}', "</call>", "<|end|>",
    ),
)  # fmt: skip
MESSAGES: list[Any] = [{"role": "user", "content": "How is the weather?"}]


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Write one project of each kind."""
    root: Path = tmp_path_factory.mktemp("projects")
    for kind in KINDS:
        done = CliRunner().invoke(new, [kind, f"acme-{kind}", "--directory", str(root / kind)])
        assert done.exit_code == 0, done.output
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="module")
def python(projects: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment with all projects installed, on top of this environment."""
    directory: Path = tmp_path_factory.mktemp("environment")
    interpreter = create_environment(directory)
    wheels = directory / "wheels"
    for project in projects.values():
        call(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", wheels, project)
    install(interpreter, *wheels.glob("*.whl"))
    return interpreter


@pytest.fixture(scope="module")
def environment(python: Path) -> Iterator[None]:
    """Start servers in that environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_a_project_pass_in_the_environment(
    kind: str, projects: Mapping[str, Path], python: Path
) -> None:
    output = call(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=projects[kind])
    assert " passed" in output.splitlines()[-1]
    assert "skipped" not in output


@pytest.mark.parametrize("kind", KINDS)
def test_mypy_finds_no_errors(
    kind: str, projects: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.getbasetemp() / "mypy"
    call(sys.executable, "-m", "mypy", "--cache-dir", cache, cwd=projects[kind])


def test_a_project_builds_what_a_package_index_accepts(projects: Mapping[str, Path], tmp_path: Path) -> None:
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, projects["tool-parser"])
    built = sorted(tmp_path.iterdir())
    assert [file.name for file in built] == [
        "acme_tool_parser-0.1.0-py3-none-any.whl",
        "acme_tool_parser-0.1.0.tar.gz",
    ]
    checked = call(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *built)
    assert checked.count("PASSED") == 2


def test_all_plugins_load_and_pass_their_contracts(python: Path) -> None:
    listed = call(python, "-m", "fllm_api", "plugins", "show", "acme_backend")
    assert "kv_cache_tokens" in listed
    for kind in KINDS:
        output = call(python, "-m", "fllm_api", "plugins", "show", f"acme-{kind}")
        assert f"acme-{kind} 0.1.0" in output
        assert "status        ok" in output
        assert " passed" in call(python, "-m", "fllm_api", "plugins", "check", f"acme-{kind}")


def test_the_parsers_parse_the_output_of_a_model(environment: None, tmp_path: Path) -> None:
    write_script(SCRIPT, tmp_path)
    parsers = ("--reasoning-parser", "acme_reasoning_parser", "--tool-call-parser", "acme_tool_parser")
    with serving(tmp_path, "--plugin", SCRIPTED_PLUGIN, "--backend", "scripted", *parsers) as server:
        tools: Any = [{"type": "function", "function": {"name": "get_weather"}}]
        with OpenAI(base_url=server.api, api_key="EMPTY") as client:
            response = client.chat.completions.create(model="EMPTY", messages=MESSAGES, tools=tools)
    message = response.choices[0].message
    assert getattr(message, "reasoning_content", None) == "It rains."
    assert message.content == "\nI look it up."
    assert message.tool_calls
    [called] = message.tool_calls
    assert called.type == "function"
    assert (called.function.name, called.function.arguments) == ("get_weather", '{"city": "서울"}')


@pytest.fixture(scope="module")
def device(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run the device with a model without a chat template, whose name the template plugin matches."""
    model: Path = tmp_path_factory.mktemp("acme-chat-template")
    write_script(SCRIPT, model)
    (model / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    options = ("--backend-option", "kv_cache_tokens=1024", "--tool-call-parser", "acme_tool_parser")
    with serving(model, "--devices", "acme_backend", *options) as server:
        yield server


@pytest.fixture
def client(device: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=device.api, api_key="EMPTY") as client:
        yield client


def test_the_device_receives_the_prompt_of_the_template(client: OpenAI) -> None:
    response = client.chat.completions.create(model="EMPTY", messages=MESSAGES, max_tokens=8, temperature=0)
    assert response.usage
    assert response.usage.prompt_tokens == len("### User:\nHow is the weather?\n\n### Assistant:\n")
    assert (response.usage.completion_tokens, response.choices[0].finish_reason) == (8, "length")
    assert client.models.list().data[0].model_dump()["runtime_config"]["device"] == "acme_backend"


def test_a_required_call_is_written_in_the_parsers_format(client: OpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"zone": {"enum": ["UTC", "KST"]}},
        "required": ["zone"],
        "additionalProperties": False,
    }
    tools: Any = [{"type": "function", "function": {"name": "now", "parameters": parameters}}]
    response = client.chat.completions.create(
        model="EMPTY", messages=MESSAGES, tools=tools, tool_choice="required", parallel_tool_calls=False
    )
    assert response.choices[0].message.tool_calls
    [called] = response.choices[0].message.tool_calls
    assert called.type == "function"
    assert called.function.name == "now"
    assert json.loads(called.function.arguments)["zone"] in ("UTC", "KST")


def test_the_grammar_restricts_the_output_to_a_choice(environment: None, tmp_path: Path) -> None:
    write_script(SCRIPT, tmp_path)
    with serving(tmp_path, "--devices", "acme_backend", "--grammar-backend", "acme_grammar") as server:
        chosen = {"guided_choice": ["maybe", "perhaps"]}
        with OpenAI(base_url=server.api, api_key="EMPTY") as client:
            response = client.completions.create(model="EMPTY", prompt="Will it rain?", extra_body=chosen)
    assert response.choices[0].text in chosen["guided_choice"]


def test_the_collector_writes_a_line_for_each_request(device: Server, client: OpenAI) -> None:
    client.completions.create(model="EMPTY", prompt="12345", max_tokens=7)
    for _ in range(200):  # written after the response was sent
        if "5 + 7 tokens" in device.log():
            return
        time.sleep(0.05)
    raise AssertionError(device.log())


def test_the_route_generates(device: Server) -> None:
    with OpenAI(base_url=device.url, api_key="EMPTY") as client:
        body = {"prompt": "How is the weather?", "max_tokens": 3}
        response = client.post("/acme-routes/generate", body=body, cast_to=dict[str, Any])
    assert response["prompt_tokens"] == len("### User:\nHow is the weather?\n\n### Assistant:\n")
    assert (response["generated_tokens"], response["finish_reason"]) == (3, "length")
