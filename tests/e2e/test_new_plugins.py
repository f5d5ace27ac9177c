"""What ``plugins new`` writes: built, installed beside ours, tested there, and served."""

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
from support.environments import beside_ours, call, install
from support.model_scripts import SCRIPTED_PLUGIN, Script, write_script

from fllm.testing import Server, serving
from fllm_api.cli.plugins.new import new
from fllm_api.cli.plugins.plugin_kinds import KINDS

pytestmark = pytest.mark.packaging

CHATTER = Script(
    "chatter",
    (
        "<reason>", "It", " rains", ".", "</reason>", "\n", "I look", " it up.", "<call>", '{"name": "get',
        '_weather", "', 'arguments": {"city"', ': "서울"}}', "</call>", "<|end|>",
    ),
)  # fmt: skip
MESSAGES: list[Any] = [{"role": "user", "content": "How is the weather?"}]


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """One of each kind, as it was written."""
    root: Path = tmp_path_factory.mktemp("projects")
    for kind in KINDS:
        done = CliRunner().invoke(new, [kind, f"acme-{kind}", "--directory", str(root / kind)])
        assert done.exit_code == 0, done.output
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="module")
def python(projects: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has them all installed, and sees what ours has."""
    directory: Path = tmp_path_factory.mktemp("environment")
    interpreter = beside_ours(directory)
    wheels = directory / "wheels"
    for project in projects.values():
        call(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", wheels, project)
    install(interpreter, *wheels.glob("*.whl"))
    return interpreter


@pytest.fixture(scope="module")
def there(python: Path) -> Iterator[None]:
    """Servers are started in that environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_tests_pass_where_it_is_installed(
    kind: str, projects: Mapping[str, Path], python: Path
) -> None:
    told = call(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=projects[kind])
    assert " passed" in told.splitlines()[-1]
    assert "skipped" not in told


@pytest.mark.parametrize("kind", KINDS)
def test_type_checkers_are_content_with_it(
    kind: str, projects: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.getbasetemp() / "mypy"
    call(sys.executable, "-m", "mypy", "--cache-dir", cache, cwd=projects[kind])


def test_the_server_knows_them_all_and_they_keep_their_contracts(python: Path) -> None:
    listed = call(python, "-m", "fllm_api", "plugins", "show", "acme_backend")
    assert "kv_cache_tokens" in listed
    for kind in KINDS:
        told = call(python, "-m", "fllm_api", "plugins", "show", f"acme-{kind}")
        assert f"acme-{kind} 0.1.0" in told
        assert "status        ok" in told
        assert " passed" in call(python, "-m", "fllm_api", "plugins", "check", f"acme-{kind}")


def test_the_parsers_read_what_a_model_says(there: None, tmp_path: Path) -> None:
    write_script(CHATTER, tmp_path)
    parsers = ("--reasoning-parser", "acme_reasoning_parser", "--tool-call-parser", "acme_tool_parser")
    with serving(tmp_path, "--plugin", SCRIPTED_PLUGIN, "--backend", "scripted", *parsers) as server:
        tools: Any = [{"type": "function", "function": {"name": "get_weather"}}]
        with OpenAI(base_url=server.api, api_key="EMPTY") as client:
            answer = client.chat.completions.create(model="EMPTY", messages=MESSAGES, tools=tools)
    message = answer.choices[0].message
    assert getattr(message, "reasoning_content", None) == "It rains."
    assert message.content == "\nI look it up."
    assert message.tool_calls
    [called] = message.tool_calls
    assert called.type == "function"
    assert (called.function.name, called.function.arguments) == ("get_weather", '{"city": "서울"}')


@pytest.fixture(scope="module")
def device(there: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the device, of a model without a template of its own, whose name the plugin knows."""
    model: Path = tmp_path_factory.mktemp("acme-chat-template")
    write_script(CHATTER, model)
    (model / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    options = ("--backend-option", "kv_cache_tokens=1024", "--tool-call-parser", "acme_tool_parser")
    with serving(model, "--devices", "acme_backend", *options) as server:
        yield server


@pytest.fixture
def client(device: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=device.api, api_key="EMPTY") as client:
        yield client


def test_the_device_answers_in_the_format_of_the_template(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="EMPTY", messages=MESSAGES, max_tokens=8, temperature=0)
    assert answer.usage
    assert answer.usage.prompt_tokens == len("### User:\nHow is the weather?\n\n### Assistant:\n")
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (8, "length")
    assert client.models.list().data[0].model_dump()["runtime_config"]["device"] == "acme_backend"


def test_the_device_calls_a_tool_in_the_format_of_the_parser_where_it_must(client: OpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"zone": {"enum": ["UTC", "KST"]}},
        "required": ["zone"],
        "additionalProperties": False,
    }
    tools: Any = [{"type": "function", "function": {"name": "now", "parameters": parameters}}]
    answer = client.chat.completions.create(
        model="EMPTY", messages=MESSAGES, tools=tools, tool_choice="required", parallel_tool_calls=False
    )
    assert answer.choices[0].message.tool_calls
    [called] = answer.choices[0].message.tool_calls
    assert called.type == "function"
    assert called.function.name == "now"
    assert json.loads(called.function.arguments)["zone"] in ("UTC", "KST")


def test_the_grammar_keeps_an_answer_to_a_choice(there: None, tmp_path: Path) -> None:
    write_script(CHATTER, tmp_path)
    with serving(tmp_path, "--devices", "acme_backend", "--grammar-backend", "acme_grammar") as server:
        chosen = {"guided_choice": ["maybe", "perhaps"]}
        with OpenAI(base_url=server.api, api_key="EMPTY") as client:
            answer = client.completions.create(model="EMPTY", prompt="Will it rain?", extra_body=chosen)
    assert answer.choices[0].text in chosen["guided_choice"]


def test_the_collector_writes_a_line_for_each_request(device: Server, client: OpenAI) -> None:
    client.completions.create(model="EMPTY", prompt="12345", max_tokens=7)
    for _ in range(200):  # it is written once the answer is on its way
        if "5 + 7 tokens" in device.log():
            return
        time.sleep(0.05)
    raise AssertionError(device.log())


def test_the_route_answers_beside_ours(device: Server) -> None:
    with OpenAI(base_url=device.url, api_key="EMPTY") as client:
        answer = client.get("/acme-routes/load", cast_to=dict[str, Any])
    assert (answer["running"], answer["waiting"], answer["max_model_len"]) == (0, 0, 1024)
