"""Real agents and SDKs complete a task: read a file through a tool, edit it, answer.

The backend is scripted: its output is in the format of a real model, token by token, and follows the turns of
each conversation. Agents run with a home directory of their own and reach nothing but the server.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.client_environments import node_environment, node_program, python_environment
from support.clients_page import example
from support.http_server import Server, serving
from support.model_scripts import (
    QWEN3_OPTIONS,
    SCRIPTED_PLUGIN,
    Turn,
    qwen3_output,
    write_conversations,
)

CLIENTS = Path(__file__).with_name("clients")
RUN_SECONDS = 180
BEFORE, AFTER = "The answer is 41.", "The answer is 42."
QUESTION = "Change 41 to 42 in note.txt."
THOUGHT = "The file first."
TITLE = {"title": "An answer changes"}
KEY = "EMPTY"
ANSWER = "Done: the file says 42 ☀."
PATCH = f"*** Begin Patch\n*** Update File: note.txt\n@@\n-{BEFORE}\n+{AFTER}\n*** End Patch\n"


def turns(
    read: tuple[str, Mapping[str, Any]], edit: tuple[str, Mapping[str, Any]], edited: str
) -> list[Turn]:
    """Return what the model generates: it reads, edits after it saw the file, and answers after the edit."""
    return [
        Turn(qwen3_output("", read, reasoning=THOUGHT), after=QUESTION),
        Turn(qwen3_output("Now the edit.", edit, reasoning="It is there."), after=BEFORE),
        Turn(qwen3_output(ANSWER, reasoning="That is all."), after=edited),
    ]


def conversations(project: Path) -> dict[str, list[Turn]]:
    """Return the turns for each agent, by a tool that only it has."""
    note = str(project / "note.txt")
    replacement = {"old": "41", "new": "42"}
    shell = ("exec_command", {"cmd": "cat note.txt"})
    return {
        "apply_patch": turns(shell, ("apply_patch", {"input": PATCH}), "M note.txt"),
        "exec_command": turns(
            shell, ("exec_command", {"cmd": f"apply_patch <<'END'\n{PATCH}END\n"}), "M note.txt"
        ),
        "Edit": turns(
            ("Read", {"file_path": note}),
            ("Edit", {"file_path": note, "old_string": "41", "new_string": "42"}),
            "has been updated",
        ),
        # Qwen Code, which has a tool "edit" like opencode.
        "grep_search": turns(
            ("read_file", {"file_path": note}),
            ("edit", {"file_path": note, "old_string": "41", "new_string": "42"}),
            "has been updated",
        ),
        "edit": turns(
            ("read", {"filePath": note}),
            ("edit", {"filePath": note, "oldString": "41", "newString": "42"}),
            "Edit applied",
        ),
        "edit_file": turns(
            ("read_file", {"path": "note.txt"}),
            ("edit_file", {"path": "note.txt", **replacement}),
            "has been edited",
        ),
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory that the agents work in."""
    directory = tmp_path_factory.mktemp("project")
    subprocess.run(["git", "init", "--quiet"], cwd=directory, check=True)
    return directory


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with the scripted backend and the default plugins."""
    directory = tmp_path_factory.mktemp("model")
    title = qwen3_output(json.dumps(TITLE), reasoning="Short.")
    write_conversations(conversations(project), title, directory)
    options = ("--max-model-len", "262144", "--api-key", KEY, "--data-dir", tmp_path_factory.mktemp("data"))
    with serving(
        directory, "--plugin", SCRIPTED_PLUGIN, "--backend", "scripted", *QWEN3_OPTIONS, *options
    ) as running:
        yield running


@pytest.fixture
def note(project: Path) -> Iterator[Path]:
    """Write the file that the agent edits. Check afterwards that it did, and nothing else."""
    file = project / "note.txt"
    file.write_text(f"{BEFORE}\n")
    yield file
    assert file.read_text() == f"{AFTER}\n"


@pytest.fixture(scope="module")
def interpreter() -> Path:
    """Return the interpreter of an environment with the Python clients."""
    return python_environment(CLIENTS / "requirements.txt")


def settings(heading: str, language: str, server: Server) -> str:
    """Return the first block of a section of the page about clients, for this server and its context."""
    return example(heading, language, server).replace("32768", "262144")


def run(command: list[str | Path], project: Path, home: Path, **environment: str) -> str:
    """Run an agent in the project. Only the server is within reach."""
    own = {
        **{"PATH": os.environ["PATH"], "HOME": str(home), "OLLAMA_API_KEY": KEY, **environment},
        **{"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost"},
    }
    done = subprocess.run(
        command,
        **{"capture_output": True, "text": True, "timeout": RUN_SECONDS, "stdin": subprocess.DEVNULL},
        cwd=project,
        env=own,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def python(interpreter: Path, script: str, server: Server, project: Path, home: Path) -> Any:
    return json.loads(run([interpreter, CLIENTS / script, server.api], project, home))


def test_opencode(server: Server, note: Path, project: Path, tmp_path: Path) -> None:
    (tmp_path / "opencode.json").write_text(settings("opencode", "json", server))
    command = [node_program(CLIENTS / "opencode", "opencode"), "run", "--format", "json", QUESTION]
    environment = {
        "OPENCODE_CONFIG": str(tmp_path / "opencode.json"),
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
    }
    events = [json.loads(line) for line in run(command, project, tmp_path, **environment).splitlines()]
    calls = [event["part"]["tool"] for event in events if event["type"] == "tool_use"]
    assert calls == ["read", "edit"]
    assert [event["part"]["text"] for event in events if event["type"] == "text"][-1].strip() == ANSWER


def codex(server: Server, project: Path, home: Path, *options: str) -> list[Any]:
    """Run Codex as the page configures it; return the items that it completed."""
    directory = home / ".codex"
    directory.mkdir()
    (directory / "config.toml").write_text(settings("Codex", "toml", server))
    (directory / "models.json").write_text(settings("Codex", "json", server))
    command = [node_program(CLIENTS / "codex", "codex"), "exec", "--json", *options]
    # The sandbox of Codex needs privileges that a container may not have.
    command += ["--dangerously-bypass-approvals-and-sandbox", QUESTION]
    printed = run(command, project, home, FURIOSA_LLM_API_KEY=KEY)
    events = [json.loads(line) for line in printed.splitlines()]
    assert events[-1]["type"] == "turn.completed"
    assert events[-1]["usage"]["output_tokens"] > 0
    return [event["item"] for event in events if event["type"] == "item.completed"]


def check_items(items: list[Any]) -> None:
    [changed] = [item for item in items if item["type"] == "file_change"]
    assert [change["kind"] for change in changed["changes"]] == ["update"]
    [command] = [item for item in items if item["type"] == "command_execution"]
    assert command["aggregated_output"].strip() == BEFORE
    assert [item["text"].strip() for item in items if item["type"] == "agent_message"][-1] == ANSWER


def test_codex(server: Server, note: Path, project: Path, tmp_path: Path) -> None:
    """The model calls functions: a shell command, and one with a patch."""
    check_items(codex(server, project, tmp_path))


def test_codex_with_a_free_form_tool(server: Server, note: Path, project: Path, tmp_path: Path) -> None:
    """A catalog of models offers ``apply_patch``, a custom tool whose input has a grammar."""
    catalog = tmp_path / ".codex" / "models.json"
    check_items(codex(server, project, tmp_path, "--config", f'model_catalog_json="{catalog}"'))


def test_claude_code(server: Server, note: Path, project: Path, tmp_path: Path) -> None:
    program = node_program(CLIENTS / "claude_code", "claude")
    shell = settings("Claude Code", "sh", server)
    environment = dict(re.findall(r"export (\w+)=(\S+)", shell))
    command = [program, "--print", "--output-format", "stream-json", "--verbose"]
    command += ["--permission-mode", "acceptEdits", QUESTION]
    printed = run(command, project, tmp_path, **environment)
    events = [json.loads(line) for line in printed.splitlines()]
    messages = [event["message"] for event in events if event["type"] == "assistant"]
    blocks = [block for message in messages for block in message["content"]]
    assert [block["name"] for block in blocks if block["type"] == "tool_use"] == ["Read", "Edit"]
    assert blocks[0]["thinking"].strip() == THOUGHT
    assert events[-1]["type"] == "result"
    assert events[-1]["result"].strip() == ANSWER
    assert events[-1]["usage"]["output_tokens"] > 0


def test_qwen_code(server: Server, note: Path, project: Path, tmp_path: Path) -> None:
    program = node_program(CLIENTS / "qwen_code", "qwen")
    environment = dict(re.findall(r"export (\w+)=(\S+)", settings("Qwen Code", "sh", server)))
    command = [program, "--auth-type", "openai", "--approval-mode", "auto-edit"]
    command += ["--output-format", "stream-json", QUESTION]
    events = [json.loads(line) for line in run(command, project, tmp_path, **environment).splitlines()]
    messages = [event["message"] for event in events if event["type"] == "assistant"]
    blocks = [block for message in messages for block in message["content"]]
    assert [block["name"] for block in blocks if block["type"] == "tool_use"] == ["read_file", "edit"]
    assert blocks[0]["thinking"].strip() == THOUGHT
    assert events[-1]["type"] == "result"
    assert events[-1]["result"].strip() == ANSWER
    assert events[-1]["usage"]["output_tokens"] > 0


def test_the_openai_agents_sdk(
    interpreter: Path, server: Server, note: Path, project: Path, tmp_path: Path
) -> None:
    """Its default is the Responses API."""
    found = python(interpreter, "agents_editor.py", server, project, tmp_path)
    assert found["answer"].strip() == ANSWER
    assert found["streamed answer"] == found["answer"]
    assert "".join(found["pieces"]).endswith(ANSWER)
    assert found["usage"][0] == found["usage"][1] > 0
    assert [answer.strip() for answer in found["kept by the server"]] == [ANSWER] * 2
    # The question; reasoning, a call and its result, twice, with a text; reasoning and the answer.
    assert found["items"] == 10


def test_langchain(interpreter: Path, server: Server, note: Path, project: Path, tmp_path: Path) -> None:
    found = python(interpreter, "langchain_editor.py", server, project, tmp_path)
    assert found["whole"]["text"].strip() == ANSWER
    assert found["streamed"] == found["whole"]


def test_the_openai_sdk(interpreter: Path, server: Server, note: Path, project: Path, tmp_path: Path) -> None:
    found = python(interpreter, "openai_editor.py", server, project, tmp_path)
    assert found["answer"].strip() == ANSWER
    assert len(found["events"]) == 3
    for events in found["events"]:
        assert events[:2] == ["response.created", "response.in_progress"]
        assert events[-1] == "response.completed"
    assert found["background"] == {"status": "completed", "types": ["reasoning", "function_call"]}
    assert found["resumed"][:3] == ["response.created", "response.queued", "response.in_progress"]
    assert found["resumed"][3:] == found["events"][0][2:]
    assert found["parsed"] == TITLE


def test_the_anthropic_sdk(
    interpreter: Path, server: Server, note: Path, project: Path, tmp_path: Path
) -> None:
    found = python(interpreter, "anthropic_editor.py", server, project, tmp_path)
    assert found["answer"].strip() == ANSWER
    assert found["streamed answer"] == found["answer"]
    assert found["streamed"] == found["whole"]
    assert [block["type"] for block in found["whole"]["content"]] == ["thinking", "tool_use"]
    assert found["whole"]["stop_reason"] == "tool_use"
    assert found["count"] == found["whole"]["tokens"][0]
    assert found["events"][0] == "message_start"
    assert found["events"][-1] == "message_stop"


def test_the_vercel_ai_sdk(server: Server, note: Path, project: Path, tmp_path: Path) -> None:
    """Its providers for OpenAI and Anthropic speak Responses and Messages."""
    shutil.copy(CLIENTS / "node" / "ai_sdk_editor.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(node_environment(CLIENTS / "node") / "node_modules")
    printed = run(["node", tmp_path / "ai_sdk_editor.mjs", server.api, QUESTION, note], project, tmp_path)
    for found in json.loads(printed).values():
        assert found["whole"].strip() == found["streamed"].strip() == ANSWER


def test_ollama(interpreter: Path, server: Server, note: Path, project: Path, tmp_path: Path) -> None:
    found = python(interpreter, "ollama_editor.py", server, project, tmp_path)
    assert found["streamed"] == found["whole"]
    [read, edit, answer] = [each["message"] for each in found["whole"]]
    assert [call["function"]["name"] for call in (*read["tool_calls"], *edit["tool_calls"])] == [
        "read_file",
        "edit_file",
    ]
    assert read["thinking"].strip() == THOUGHT
    assert answer["content"].strip() == ANSWER
