"""Chat templates and tokenizers that never end or take all memory: at the start, and for some requests."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.fault_server import ask, has_exited, wait_until
from support.fault_table import Seen, fault
from support.http_server import Server, command, run, serving
from support.server_start import error_line

from fllm.testing.echo import ECHO_PLUGIN, echo_model

ECHO = ("--plugin", ECHO_PLUGIN, "--backend", "echo")
ENDLESS = "{% for x in range(99999) %}{% for y in range(99999) %}{% set z = y %}{% endfor %}{% endfor %}"
"""Takes an hour."""
DOUBLING = "{% set n = namespace(s='a') %}{% for x in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}"
BOMBS = {
    "loops for hours": ENDLESS,
    "multiplies a text by ten billion": "{{ 'a' * 10**10 }}",
    "computes an integer of 40 billion bits": "{{ 10 ** (10 ** 10) }}",
    "doubles a text 60 times": DOUBLING,
    "pads a text to ten billion characters": "{{ 'a'.ljust(10000000000) }}",
}


def hostile_model(directory: Path, template: str) -> Path:
    """Write a model with a chat template."""
    echo_model(directory)
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return directory


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(
            template,
            id=what,
            marks=fault(
                "Start",
                f"The model's chat template {what}",
                must="Status 2 and one line that names the file and --chat-template, in bounded time",
            ),
        )
        for what, template in BOMBS.items()
    ],
)
def test_a_template_that_exceeds_the_limits_ends_the_start(template: str, tmp_path: Path, seen: Seen) -> None:
    model = hostile_model(tmp_path / "model", template)
    began = time.monotonic()
    line = error_line(run("serve", str(model), "--port", "0", *ECHO, timeout=90))
    took = time.monotonic() - began
    assert "tokenizer_config.json" in line
    assert "--chat-template FILE" in line
    seen(f"“{line.replace(str(model), 'MODEL')}”, after {took:.0f} s")


def wait_until_it_computes(pid: int) -> int:
    """Return the child process that renders the template, once it has done so for a while."""
    found: list[int] = []

    def computes() -> bool:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found[:] = map(int, (task / "children").read_text().split())
            if found:
                return float(Path(f"/proc/{found[0]}/stat").read_text().split()[13]) > 100  # ticks of 10 ms
        return False

    wait_until(computes, "the template is rendered")
    return found[0]


@fault(
    "Shutdown",
    "SIGTERM or SIGINT while the chat template of the model loops at the start",
    must="Exit status 0 at once; no process is left",
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_template_loops(number: signal.Signals, tmp_path: Path, seen: Seen) -> None:
    model = hostile_model(tmp_path / "model", ENDLESS)
    arguments = command("serve", str(model), "--port", "0", *ECHO)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        check = wait_until_it_computes(process.pid)
        began = time.monotonic()
        process.send_signal(number)
        out, log = process.communicate(timeout=30)
        took = time.monotonic() - began
    assert (process.returncode, out) == (0, ""), log
    wait_until(lambda: has_exited(check), "the check is gone", 10)
    seen(f"{number.name}: exit status 0 after {took:.1f} s")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Return a server whose template misbehaves for certain messages."""
    cases = {"loop": ENDLESS, "double": DOUBLING, "repeat": "{{ 'a' * 10**10 }}"}
    template = "".join(
        f"{{% if messages[-1].content == '{word}' %}}{bomb}{{% endif %}}" for word, bomb in cases.items()
    )
    model = hostile_model(
        tmp_path_factory.mktemp("models") / "model", template + "{{ messages[-1].content }}{{ tools }}"
    )
    backtrack(model, "(z+)+q")
    with serving(model, *ECHO) as server:
        yield server


def backtrack(model: Path, pattern: str) -> None:
    """Let a model's tokenizer split texts by a regular expression."""
    content = json.loads((model / "tokenizer.json").read_bytes())
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, content["pre_tokenizer"]]}
    (model / "tokenizer.json").write_text(json.dumps(content))


@fault(
    "Start",
    "A regular expression of the model's tokenizer backtracks for ever",
    must="Status 2 and one line that names the file, in bounded time",
)
def test_a_tokenizer_that_backtracks_ends_the_start(tmp_path: Path, seen: Seen) -> None:
    model = echo_model(tmp_path / "model")
    backtrack(model, "(a+)+b")
    line = error_line(run("serve", str(model), "--port", "0", *ECHO, timeout=90))
    assert "tokenizer.json" in line
    seen(f"“{line.replace(str(model), 'MODEL')}”")


@fault(
    "Plugins",
    "A regular expression of the model's tokenizer backtracks for ever on a certain text",
    must="400 in bounded time; others are served",
)
def test_a_text_that_the_tokenizer_fails_on_fails_alone(server: Server, seen: Seen) -> None:
    began = time.monotonic()
    response = ask(server, "z" * 100)
    took = time.monotonic() - began
    assert response.status_code == 400, response.text
    assert ask(server, "hello").status_code == 200
    seen(f"400 after {took:.1f} s, “{response.json()['error']['message']}”")


@pytest.mark.parametrize(
    ("word", "what"),
    [
        pytest.param(word, what, marks=fault("Plugins", what, must="400 in bounded time; others are served"))
        for word, what in {
            "loop": "The model's chat template loops for a certain conversation",
            "double": "The model's chat template doubles a text again and again for a certain conversation",
            "repeat": "The model's chat template repeats a text ten billion times for a certain conversation",
        }.items()
    ],
)
def test_a_conversation_that_the_template_loops_on_fails_alone(
    word: str, what: str, server: Server, seen: Seen
) -> None:
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        slow = pool.submit(ask, server, word)
        others = 0
        while not slow.done() or not others:
            assert ask(server, "hello").status_code == 200
            others += 1
        response = slow.result()
        took = time.monotonic() - began
    assert response.status_code == 400, response.text
    assert "chat template" in response.text
    seen(f"400 after {took:.1f} s, “{response.json()['error']['message']}”; {others} others were served")
